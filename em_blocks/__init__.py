"""Blockwise electron-microscopy connectomics: prediction, segmentation, synapses.

Importing this package loads neither torch nor gunpowder nor pymongo; the
parts that need them are imported where they are used.
"""

__version__ = "0.1.0"

from em_blocks.errors import EmBlocksError
from em_blocks.geometry import Box, Frame, Roi

__all__ = ["Box", "EmBlocksError", "Frame", "Roi", "__version__"]
