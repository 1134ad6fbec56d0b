"""Find which synapses face one cleft, block by block: ``cluster_clefts_blockwise.py CONFIG``."""

from em_blocks.cli.steps import kind_command

main = kind_command("cluster_clefts")

if __name__ == "__main__":
    main()
