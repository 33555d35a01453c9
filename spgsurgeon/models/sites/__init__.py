"""Where in a model replicas can attach."""
