"""Make a chunked volume of images or HDF5, block by block: ``ingest.py CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.volumes.ingest import Ingest

main = steps_command(
    Ingest,
    "ingest",
    """Copy the image stack or HDF5 dataset described in CONFIG (JSON) into a new volume.

    Every source image is read once. Blocks that the database knows as done are skipped, so
    a stopped run is simply repeated; volumes that exist already are never overwritten.
    """,
)

if __name__ == "__main__":
    main()
