"""The model libraries: naming, building, preprocessing, configuration."""
