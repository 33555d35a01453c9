"""Which weights learn, and how fast each of them does."""
