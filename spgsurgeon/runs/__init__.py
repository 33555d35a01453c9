"""A run folder: its layout, its writer, its metrics log, its readers."""
