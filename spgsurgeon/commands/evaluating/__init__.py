"""Parts of `eval`."""
