"""A model's way from a file to a batch's predictions: package -> store -> registry -> loader."""
