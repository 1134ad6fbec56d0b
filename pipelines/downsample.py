"""Make a pyramid of a volume, level by level, block by block: ``downsample.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("downsample")

if __name__ == "__main__":
    main()
