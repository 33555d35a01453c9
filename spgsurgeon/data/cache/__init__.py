"""Where images stay decoded."""
