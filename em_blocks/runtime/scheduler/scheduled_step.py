"""Input of the scheduler for each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from em_blocks.db.runs import RunStore
from em_blocks.runtime.protocol.job import Job
from em_blocks.runtime.scheduler.dispatch import Work


@dataclass(frozen=True)
class ScheduledStep:
    """The blocks of one run that are to be done, and what it takes to do them.

    Attributes
    ----------
    work : Work
    store : RunStore
    measured : dict or None
        Values measured once for the run.
    uri : str
        Address of the database, password included.
    epoch : int
        Of this start of the run.
    """

    work: Work
    store: RunStore
    measured: dict | None
    uri: str = field(repr=False)
    epoch: int

    @property
    def job(self) -> Job:
        """What workers are told."""
        return Job.of(self.work.task, measured=self.measured, uri=self.uri, epoch=self.epoch)
