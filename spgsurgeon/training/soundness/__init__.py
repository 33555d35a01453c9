"""What is refused before and while it trains: numbers that are not finite, normalisations that have none to go by."""
