"""Kill a prediction at a random moment, run the same command again, compare with an undisturbed run.

Victims take turns: one worker, the scheduler's whole process group, mongod; always ``kill -9``. After
the second command the output folder must be byte-identical, every block must be in the database
once, and the second command must have computed exactly the blocks that were missing.

By default a small volume of noise is predicted; ``--config`` takes any prediction config, for example
``configs/fib25_affinities.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import DONE, RunStore
from em_blocks.db.server import running_uri
from em_blocks.tasks.predict import Predict
from parts.noise import small_config

COMMAND = [sys.executable, "-m", "em_blocks.pipelines.predict_blockwise"]
VICTIMS = ("worker", "scheduler group", "mongod")


def command(config: Path, folder: Path, overrides: tuple[str, ...]) -> list[str]:
    sets = [f"output={folder / 'p.zarr'}", *overrides]
    return [*COMMAND, str(config), "--json", *(a for s in sets for a in ("--set", s))]


def run(arguments: list[str]) -> dict:
    """Run the command to its end; its report, with the exit code."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return {**json.loads(done.stdout), "exit_code": done.returncode}


def kill_during(arguments: list[str], folder: Path, victim: str, after_s: float) -> int:
    """Start the command, kill -9 the victim `after_s` after the first worker appeared.

    Returns how many blocks were done at that moment.
    """
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not workers(process):
        time.sleep(0.02)
    time.sleep(after_s)
    done = done_now(folder)
    if victim == "scheduler group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "mongod":
        server = folder / "db" / "server.json"
        if server.exists():
            kill(json.loads(server.read_text())["pid"])
    elif found := workers(process):
        kill(random.choice(found))
    process.wait()
    return done


def done_now(folder: Path) -> int:
    """Done blocks in the database while the command runs."""
    uri = running_uri(folder / "db")
    if uri is None:
        return 0
    with connect(uri) as client:
        return client["em_blocks"].blocks.count_documents({"state": DONE})


def workers(process: subprocess.Popen) -> list[int]:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [c.pid for c in children if "em_blocks.workers.predict_worker" in c.cmdline()]
    except psutil.Error:
        return []


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        print("the victim had just ended by itself")


def digest(folder: Path) -> dict[str, str]:
    """sha256 of every file of the output."""
    root = folder / "p.zarr"
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*")) if p.is_file()
    }


def documents(config: Path, folder: Path, overrides: tuple[str, ...]) -> list[dict]:
    task = Predict.from_file(config, (f"output={folder / 'p.zarr'}", *overrides))
    with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
        return list(RunStore(client, task.db_name, task.run).documents())


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=None)
@click.option("--set", "overrides", multiple=True, help="As in predict_blockwise.py.")
@click.option("--trials", default=6, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(config: Path | None, overrides: tuple[str, ...], trials: int, seed: int) -> None:
    random.seed(seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = config or small_config(root)
        reference = run(command(config, root / "undisturbed", overrides))
        assert reference["exit_code"] == 0, reference
        expected, total = digest(root / "undisturbed"), reference["blocks"]["total"]
        print(f"undisturbed: {total} blocks in {reference['wall_s']:.1f} s", flush=True)
        different = 0
        for trial in range(trials):
            folder, victim = root / f"trial{trial}", VICTIMS[trial % len(VICTIMS)]
            arguments = command(config, folder, overrides)
            # Up to 0.75: start-up is not counted, and a run that has ended cannot be killed.
            after_s = random.uniform(0.0, 0.75) * reference["wall_s"]
            then = kill_during(arguments, folder, victim, after_s)
            before = sum(d["state"] == DONE for d in documents(config, folder, overrides))
            report = run(arguments)
            found = documents(config, folder, overrides)
            same = (
                report["exit_code"] == 0
                and digest(folder) == expected
                and len(found) == len({d["_id"] for d in found}) == total
                and report["blocks"]["computed"] == total - before
            )
            different += not same
            print(
                f"trial {trial + 1}: {victim} killed after {after_s:.1f} s with {then} of {total} "
                f"blocks done, {before} at the end; again: {report['blocks']['computed']} computed, "
                f"{'identical' if same else 'DIFFERENT'}", flush=True,
            )
    print(json.dumps({"name": "kill -9 trials with another result", "value": different,
                      "unit": "trials", "against": trials, "ratio": different / trials}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
