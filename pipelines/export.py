"""Write synapses for other programs: ``export.py synapses|graph|annotations CONFIG --output FILE``."""

from em_blocks.cli.export import main

if __name__ == "__main__":
    main()
