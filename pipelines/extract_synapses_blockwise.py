"""Find synaptic partners in predictions, block by block: ``extract_synapses_blockwise.py CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.synapses.extract_synapses import ExtractSynapses

main = steps_command(
    ExtractSynapses,
    "extract-synapses",
    """Detect synapses in the predictions in CONFIG (JSON) and store the pairs in the database.

    Blocks that the database knows as done are skipped, so a stopped run is simply repeated.
    """,
)

if __name__ == "__main__":
    main()
