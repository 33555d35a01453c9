"""Attaching replicas, taking them down, and the laws that prove both."""
