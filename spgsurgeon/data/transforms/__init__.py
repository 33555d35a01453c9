"""From a decoded image to what the model sees."""
