"""Map synapses to supervoxels and segments, block by block: ``map_synapses_blockwise.py CONFIG``."""

from em_blocks.cli.map_synapses import main

if __name__ == "__main__":
    main()
