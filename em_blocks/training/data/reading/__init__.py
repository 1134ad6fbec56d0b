"""How voxels of other grids, of classes and beyond the end of a volume are read."""
