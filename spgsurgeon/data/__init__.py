"""Sources of samples, what happens to a sample, and how batches reach the device."""
