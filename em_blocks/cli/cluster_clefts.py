"""``em-blocks cluster-clefts CONFIG``."""

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.synapses.cluster_clefts import ClusterClefts

main = steps_command(
    ClusterClefts,
    "cluster-clefts",
    """Find which synapses face the same predicted cleft, as CONFIG (JSON) says.

    Every step is a run of its own (RUN.parts, RUN.join, RUN.clefts, RUN.rows, RUN.connectors), of
    which done blocks are skipped: a stopped command is simply repeated.
    """,
)
