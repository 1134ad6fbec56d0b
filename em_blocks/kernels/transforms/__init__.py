"""Tiles, symmetries, deformation and noise of arrays."""
