"""Write results for other programs: ``export.py tiff|synapses|graph|annotations ... --output PATH``."""

from em_blocks.cli.export import main

if __name__ == "__main__":
    main()
