"""Measure the objects of a volume, block by block: ``compute_features_blockwise.py CONFIG``."""

from em_blocks.cli.features import main

if __name__ == "__main__":
    main()
