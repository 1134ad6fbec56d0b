"""Everything that a task is written with; the one place to import it from."""

from em_blocks.tasks.fingerprint import differences, differing_fields, fingerprint
from em_blocks.tasks.report import BlockReport
from em_blocks.tasks.run_config import RunConfig, RunName
from em_blocks.tasks.task import BlockwiseTask, ProcessBlock

__all__ = [
    "BlockReport", "BlockwiseTask", "ProcessBlock", "RunConfig", "RunName", "differences",
    "differing_fields", "fingerprint",
]
