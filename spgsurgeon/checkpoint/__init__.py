"""Weight files: reading strangers' safely, writing atomically, hashing content, the folders the package writes."""
