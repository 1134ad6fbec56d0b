"""A whole job on a volume of its own, up to synaptic partners: ``demo.py [FOLDER]``."""

from em_blocks.cli.demo.main import main

if __name__ == "__main__":
    main()
