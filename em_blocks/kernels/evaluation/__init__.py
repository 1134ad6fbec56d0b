"""Scores of segmentations, objects, partners and connectivity."""
