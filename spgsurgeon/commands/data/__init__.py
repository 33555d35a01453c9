"""Verbs that are about data alone."""
