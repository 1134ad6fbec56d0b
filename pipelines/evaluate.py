"""Score results against truth: ``evaluate.py segmentation --segmentation VOLUME --truth VOLUME``."""

from em_blocks.cli.evaluation.evaluate import main

if __name__ == "__main__":
    main()
