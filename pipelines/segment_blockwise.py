"""Segment a volume of affinities, block by block: ``segment_blockwise.py CONFIG``."""

from em_blocks.cli.segment import main

if __name__ == "__main__":
    main()
