"""What all verbs share in a terminal: console, options, progress."""
