"""Scores of finished results."""
