"""Predict a volume, block by block: ``predict_blockwise.py CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.prediction.predict import Predict

main = steps_command(
    Predict,
    "predict",
    """Predict the volume described in CONFIG (JSON) with a trained network, block by block.

    Blocks that the database knows as done are skipped, so a stopped run is simply repeated.
    """,
)

if __name__ == "__main__":
    main()
