"""Make a chunked volume of images or HDF5, block by block: ``ingest.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("ingest")

if __name__ == "__main__":
    main()
