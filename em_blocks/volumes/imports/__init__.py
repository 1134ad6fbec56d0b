"""Image stacks and HDF5 as sources of voxels."""
