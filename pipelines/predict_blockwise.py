"""Predict a volume, block by block: ``predict_blockwise.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("predict")

if __name__ == "__main__":
    main()
