"""Files of other programs as sources of voxels; one class per file."""
