"""Make a pyramid of a volume, level by level, block by block: ``downsample.py CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.volumes.downsample import Downsample

main = steps_command(
    Downsample,
    "downsample",
    """Make coarser and coarser levels of the volume in CONFIG (JSON), for viewers and masks.

    The mode of labels, the mean of images; as OME-NGFF or for neuroglancer (precomputed). Every
    level is a run of its own (RUN.s0, RUN.s1, ...), of which done blocks are skipped: a stopped
    command is simply repeated.
    """,
)

if __name__ == "__main__":
    main()
