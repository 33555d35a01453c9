"""The arms of a comparison: those that there are, and those that are asked for."""
