"""Connected components, of blocks and of sparse voxels."""
