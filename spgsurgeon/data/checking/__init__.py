"""Looking at data before it is trained on: what there is of it, what can't be read, what is there twice."""
