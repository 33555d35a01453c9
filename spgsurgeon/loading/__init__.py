"""From a MODEL string to a module that holds its weights."""
