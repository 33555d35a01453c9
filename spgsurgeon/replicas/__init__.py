"""Task Replica Prediction: the temporary modules and the grafted model that holds them."""
