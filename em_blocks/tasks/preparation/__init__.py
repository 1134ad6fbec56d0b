"""Data before they are labelled, learnt from or predicted: contrast, masks, conversions."""
