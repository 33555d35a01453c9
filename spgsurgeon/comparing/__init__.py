"""Arms, plan, pool of runs, search, scores and statistics of a comparison."""
