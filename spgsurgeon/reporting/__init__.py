"""What runs recorded, as figures and one page: numbers in, pictures and HTML out. No model or data is opened here."""
