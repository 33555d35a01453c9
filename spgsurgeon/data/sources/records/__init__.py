"""Records: rows of a table, or of a data set that Hugging Face's library saved, with columns by name."""
