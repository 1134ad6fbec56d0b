"""Instances against true ones: shared voxels, errors and their places, intervals, pictures."""
