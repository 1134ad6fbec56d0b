"""What a task is given of the run that it works for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from em_blocks.db.connect import OUTAGE_S
from em_blocks.db.documents import DocumentStore
from em_blocks.db.rows import RowStore
from em_blocks.db.runs import RunStore
from em_blocks.db.schemas.base import DocumentSchema, RowSchema, Table
from em_blocks.errors import DatabaseError


@dataclass(frozen=True)
class RunContext:
    """The measured values of a run, and its database.

    Parameters
    ----------
    measured : dict
        What `BlockwiseTask.measure` returned when the run began.
    store : RunStore, optional
        The run's documents; without them, nothing can be read from or written to the database.
    guard : function
        Called before every change of rows; raises where this process must not write any more.
    outage_s : float
        How long calls wait for an unavailable database before they fail.
    scratch : bool
        Whether changes of rows are dropped: in probes and replays.
    """

    measured: dict = field(default_factory=dict)
    store: RunStore | None = None
    guard: Callable[[], None] = lambda: None
    outage_s: float = OUTAGE_S
    scratch: bool = False

    @property
    def records(self) -> RunStore:
        """The run's documents.

        Raises
        ------
        DatabaseError
            If the task is opened without a database.
        """
        if self.store is None:
            raise DatabaseError(
                "The task needs the database of its run, but it was opened without one. Give "
                "`RunContext` the run's store."
            )
        return self.store

    def rows(self, schema: RowSchema[Table], run: str | None = None) -> RowStore[Table]:
        """Return the rows of a run, by default of this one."""
        return RowStore(*self._place(run), schema, **self._options)

    def documents(self, schema: DocumentSchema, run: str | None = None) -> DocumentStore:
        """Return the documents that a run, by default this one, has as a whole."""
        return DocumentStore(*self._place(run), schema, **self._options)

    def _place(self, run: str | None) -> tuple[Any, str, str]:
        records = self.records
        return records.client, records.database.name, run or records.run

    @property
    def _options(self) -> dict[str, Any]:
        return {"guard": self.guard, "outage_s": self.outage_s, "scratch": self.scratch}
