"""Pickles read as data, never executed."""
