"""Validation scores: of single voxels, and of several heads together."""
