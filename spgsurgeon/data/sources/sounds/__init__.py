"""Sounds: files that are read as far as they are needed, each with its label."""
