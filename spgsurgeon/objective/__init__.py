"""Episodes and the Sequential Policy Gradient loss: pure functions on tensors."""
