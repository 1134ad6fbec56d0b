"""Find synaptic partners in predictions, block by block: ``extract_synapses_blockwise.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("extract_synapses")

if __name__ == "__main__":
    main()
