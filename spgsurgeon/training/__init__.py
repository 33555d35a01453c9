"""Data, optimisation, cold start, the training loop and its run directory."""
