"""What a notebook user calls: one file a verb of the command line."""
