"""Clean a segmentation by connected components, block by block: ``clean.py CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.components.clean import Clean

main = steps_command(
    Clean,
    "clean",
    """Make every id of the segmentation in CONFIG (JSON) one connected object.

    The largest part of an id keeps it, other large parts become objects of their own, small ones are
    erased. Three runs (RUN.parts, RUN.join, RUN.cleaned), of which done blocks are skipped: a stopped
    command is simply repeated.
    """,
)

if __name__ == "__main__":
    main()
