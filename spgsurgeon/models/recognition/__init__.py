"""Which architecture tensors belong to, by their keys and shapes alone."""
