"""What a task is: its batches, how logits are read, its metrics."""
