"""Sources: samples that can be read in any order, each with its target."""
