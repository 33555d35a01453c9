"""What `strip` writes: weights with their proofs, and the model card."""
