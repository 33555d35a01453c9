"""From a name or a checkpoint to a module, and where replicas attach: the room that knows the model libraries."""
