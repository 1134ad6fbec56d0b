"""A running training and its terminal: signals and progress."""
