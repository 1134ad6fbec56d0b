"""Clean a segmentation by connected components, block by block: ``clean.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("clean")

if __name__ == "__main__":
    main()
