"""Find which synapses face one cleft, block by block: ``cluster_clefts_blockwise.py CONFIG``."""

from em_blocks.cli.cluster_clefts import main

if __name__ == "__main__":
    main()
