"""Which tensors of a document are the weights, and under which keys."""
