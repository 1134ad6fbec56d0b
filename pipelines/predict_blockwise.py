"""Predict a volume, block by block: ``predict_blockwise.py CONFIG``."""

from em_blocks.cli.predict import main

if __name__ == "__main__":
    main()
