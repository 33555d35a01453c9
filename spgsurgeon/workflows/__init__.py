"""One whole job per verb, on paths and plain arguments; the same calls a notebook user makes."""
