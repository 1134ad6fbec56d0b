"""Runs of blockwise tasks: from their configs to their reports."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from em_blocks.db.connect import ServerError, connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.errors import DatabaseLostError, EmBlocksError, RunFailedError
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.claim import claim
from em_blocks.runtime.runs.inputs import look_at
from em_blocks.runtime.runs.preflight import Checked, check_task
from em_blocks.runtime.runs.report import RunReport, write_summaries
from em_blocks.runtime.scheduler.schedule import schedule
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.serial import do_serially
from em_blocks.runtime.scheduler.started_run import StartedRun
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes.stores.ledger import Ledger, named_blocks

Scheduler = Callable[[Sequence[ScheduledStep], Console], tuple[bool, str | None]]
"""Has the blocks of steps done; returns whether any failed permanently, and why it ended early."""


def run_blockwise(task: BlockwiseTask, **options) -> RunReport:
    """Do all blocks of `task` that the database does not list as done; see `run_steps`."""
    return run_steps([task], **options)[-1]


def run_steps(
    steps: Sequence[BlockwiseTask],
    *,
    overwrite: bool = False,
    adopt: bool = False,
    requeue: bool = False,
    serial: bool = False,
    console: Console | None = None,
) -> list[RunReport]:
    """Do all blocks of all `steps` that the database does not list as done.

    Every step is a run of its own. A block of a step starts as soon as those blocks of the step
    before are done that it reads, so a step does not wait for the whole of the one before.

    Parameters
    ----------
    steps : sequence of BlockwiseTask
        Each reads what the one before writes; all with the same database and grid of voxels.
    overwrite : bool
        Delete earlier runs of these names and their outputs first.
    adopt : bool
        Keep the blocks of an earlier run although its settings differ.
    requeue : bool
        Try failed and quarantined blocks again.
    serial : bool
        Do the blocks one after another in this thread, without worker processes: under a debugger,
        for tasks that workers cannot import. Records, retries and results are the same.

    Returns
    -------
    list of RunReport
        One per step; if interrupted early, of those that had begun.

    Raises
    ------
    EmBlocksError
        If a run cannot or must not start; nothing was changed.
    """
    console = console or Console(stderr=True)
    first = steps[0]
    checked = check_task(first, launched=not serial)
    with _connected(steps) as (client, uri), sigterm_as_interrupt():
        command = _Command(client, uri, console, {"overwrite": overwrite, "adopt": adopt})
        runs = command.runs
        try:
            for step in steps:
                store = _store_of(client, step)
                if step is not first:
                    checked = check_task(step, command.made_here, launched=not serial)
                command.begin(step, checked, store, requeue=requeue)
            reports = _run(runs, do_serially if serial else schedule, console)
        except KeyboardInterrupt:  # while the runs were prepared, which may measure a whole volume
            reports = [run.finish("interrupted") for run in runs]
            if all(report.ok for report in reports):
                raise  # the steps that had not begun have no report that could say so
        except (DatabaseLostError, ServerError):
            raise  # the database cannot record that the runs failed
        except BaseException as error:  # a task of this thread may exit: the leases must not stay
            _give_up(runs, step, error, console)
            raise
        write_summaries(first.home, reports, console)
        return reports


@contextmanager
def _connected(steps: Sequence[BlockwiseTask]) -> Iterator[tuple]:
    """Yield a client of the database of `steps`, and its URI."""
    with database_uri(steps[0].db_host, steps[0].home) as uri, connect(uri) as client:
        try:
            yield client, uri
        except ServerError as error:
            raise RunFailedError(
                f"The database was lost during run {steps[-1].run!r}: {str(error)[:300]}. What it has "
                "confirmed is safe; run the same command again when it is back."
            ) from error


@dataclass
class _Command:
    """The runs that one call of `run_steps` has begun, and what their steps share."""

    client: object
    uri: str
    console: Console
    options: dict[str, bool]
    runs: list[StartedRun] = field(default_factory=list)
    made_here: dict[str, Ledger] = field(default_factory=dict)
    seen: dict = field(default_factory=dict)

    def begin(
        self, step: BlockwiseTask, checked: Checked, store: RunStore, *, requeue: bool
    ) -> None:
        """Claim the run of a step, make its outputs and find what is to do."""
        inputs = look_at(step, checked, self.made_here, store, self.seen)
        claimed = claim(store, step, checked, inputs, **self.options)
        for note in claimed.notes:
            self.console.print(f"Run {step.run}: {note}", markup=False, highlight=False)
        run = StartedRun(
            step, checked, inputs, dict(self.made_here), store, self.uri, claimed.epoch, self.console
        )
        self.runs.append(run)
        run.prepare(requeue=requeue)
        self.made_here |= run.ledgers.planned()


def _give_up(
    runs: list[StartedRun], step: BlockwiseTask, error: BaseException, console: Console
) -> None:
    """End all runs that have begun because of an error of `step`."""
    message = str(error) if isinstance(error, EmBlocksError) else f"{type(error).__name__}: {error}"
    begun = bool(runs) and runs[-1].task is step
    why = message if begun else f"the step {step.run} cannot begin: {message}"
    reports = [run.finish(why, given_up=True) for run in runs]
    if reports:
        write_summaries(step.home, reports, console, None if begun else (step.run, message))


def _store_of(client, step: BlockwiseTask) -> RunStore:
    """Return the documents of a step's run, indexed. Raises if they make the run impossible."""
    store = RunStore(client, step.db_name, step.run)
    store.prepare()
    context = RunContext(store=store, outage_s=step.db_outage_s)
    for output in step.output_specs():
        output.prepare(context)
    step.check_rows(context)
    return store


def _run(runs: list[StartedRun], do: Scheduler, console: Console) -> list[RunReport]:
    reason = None
    try:
        in_order = any(run.ledgers.anew.any() for run in runs)
        given_up, reason = (_one_by_one if in_order else _do)(runs, do, console)
        for run in runs:
            run.left = run.lost() | run.patiently(run.take_back)
            run.left |= run.take_back_stale()
        if reason is None and not given_up:
            # Some workers died between write and commit, or inputs were stored again meanwhile; retry
            # these blocks once.
            _, reason = _do(runs, do, console)
    except KeyboardInterrupt:
        reason = "interrupted"
    reports, complete = [], True
    for run in runs:
        if reason is None and complete:
            run.record_lost()
        reports.append(run.finish(_why(run, reason, complete)))
        complete = complete and reports[-1].ok
    return reports


def _one_by_one(
    runs: list[StartedRun], do: Scheduler, console: Console
) -> tuple[bool, str | None]:
    """Do the steps one after another, because some blocks are recomputed.

    Most come out as they were. Blocks that read them are due only if they do not, which is known when
    the step has ended.
    """
    any_given_up, ended = False, {}
    for run in runs:
        run.made_here |= {p: ended[p] for p in run.made_here if p in ended}
        run.left |= run.take_back_stale()
        given_up, reason = _do([run], do, console)
        any_given_up |= given_up
        if reason is not None:
            return any_given_up, reason
        ended |= run.ended()
    return any_given_up, None


def _why(run: StartedRun, reason: str | None, complete: bool) -> str | None:
    if reason is None and run.waiting:
        return "; ".join(
            f"{int(blocks.sum())} blocks wait for what {name} lacks ({named_blocks(blocks)})"
            for name, blocks in run.waiting.items()
        )
    if reason is None and not complete:
        return "blocks of the step before are missing"
    return reason


def _do(runs: list[StartedRun], do: Scheduler, console: Console) -> tuple[bool, str | None]:
    """Have missing blocks done; return whether any failed permanently, and why it ended early."""
    active = [run for run in runs if run.left.any()]
    if not active:
        return False, None
    with ExitStack() as stack:
        for run in active:
            stack.enter_context(run.working())
        given_up, reason = do([run.step() for run in active], console)
    if reason is not None:
        # A cause that affects every block must not count against single ones.
        for run in active:
            run.patiently(run.store.requeue)
    return given_up, reason


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; only in the main thread, which receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_):
        # Not by SIGINT: a job in the background of a script ignores that.
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
