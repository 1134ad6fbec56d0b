"""``em-blocks join CONFIG``: be a worker of a run whose scheduler is somewhere else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from em_blocks.cli.common import config_argument, load_config, set_option, shows_errors
from em_blocks.errors import EXIT_BAD_INPUT, ConfigError
from em_blocks.runtime.protocol.job import session_path
from em_blocks.tasks.base import BlockwiseTask

POLL_S = 2.0
NEXT_MIN = 1.0


@click.command(name="join")
@config_argument
@set_option
@click.option("--wait-min", default=0.0, show_default=True,
              help="Minutes to wait for the run to begin; then one minute for its next part.")
@shows_errors
def main(config: Path, overrides: tuple[str, ...], wait_min: float) -> None:
    """Take part in a run as one more worker, until no block is left.

    The scheduler (`em-blocks predict CONFIG` and so on, usually with "launcher": "external") may be on
    another host. Its address and the secret of the run are in a private file of the run folder, which
    this host must see. Workers may come and go at any time.
    """
    steps = load_config(config, overrides).steps()
    code = _join(steps, wait_min)
    if code is None:
        raise ConfigError(
            f"Nothing to join: no scheduler works on run {steps[0].run!r} now, or this host does not "
            f"see its folder {steps[0].home}. Start the run first, and let workers wait for it with "
            "--wait-min."
        )
    # A run of several parts has a session for each.
    while code == 0 and wait_min and len(steps) > 1:
        again = _join(steps, min(wait_min, NEXT_MIN))
        code = 0 if again is None else again
        if again is None:
            break
    sys.exit(code)


def _join(steps: list[BlockwiseTask], wait_min: float) -> int | None:
    """Be a worker once; its exit code, or None if there was no session to join in time."""
    deadline = time.monotonic() + 60 * wait_min
    while True:
        found = [(session_path(step), step) for step in steps if session_path(step).exists()]
        if found:
            code = _work(*found[0])
            # A scheduler that was killed leaves its session behind; its successor writes another.
            if code != EXIT_BAD_INPUT or time.monotonic() > deadline:
                return code
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)


def _work(session: Path, step: BlockwiseTask) -> int:
    worker = subprocess.Popen([sys.executable, "-m", step.worker_module, str(session)])
    # Whoever is told to go, the worker hands back what it has.
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    return worker.wait()
