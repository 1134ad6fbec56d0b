"""Kill a run at a random moment, run the same command again, compare with an undisturbed run.

Victims take turns: one worker, the scheduler's whole process group, mongod; always ``kill -9``. After
the second command the output folder must be byte-identical, the rows of synapses must be the same,
every block of every step must be in the database once, and the second command must have computed
exactly the blocks that were missing.

By default a small volume of noise is predicted, generated affinities are segmented, and synapses and
instances are found in generated predictions; ``--config`` takes any config of ``em-blocks predict``,
``segment``, ``segment-instances`` or ``extract-synapses``, for example
``configs/fib25_affinities_fp32.json`` or ``configs/fib25_segment.json``.
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

from em_blocks.cli.common import load_config
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import DONE, RunStore
from em_blocks.db.server import running_uri
from em_blocks.errors import DatabaseError
from em_blocks.volumes.stores.ledger import LEDGER
from parts.affinities import segment_config
from parts.capsule_maps import instances_config
from parts.noise import small_config
from parts.synapse_prediction import extract_config

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]
VICTIMS = ("worker", "scheduler group", "mongod")


class Trials:
    """The runs of one config, each in a folder of its own."""

    def __init__(self, config: Path, overrides: tuple[str, ...]):
        self.config, self.overrides = config, overrides
        self.kind = load_config(config, overrides).kind

    def command(self, folder: Path) -> list[str]:
        sets = (a for s in self.sets(folder) for a in ("--set", s))
        return [*COMMAND, self.kind.replace("_", "-"), str(self.config), "--json", *sets]

    def sets(self, folder: Path) -> tuple[str, ...]:
        if self.kind == "extract_synapses":  # it writes nothing but rows
            return (*self.overrides, f"run_dir={folder}")
        return (*self.overrides, f"output={folder / 'p.zarr'}")

    def results(self, folder: Path) -> dict[str, str]:
        """sha256 of every file of the output, and every row of synapses."""
        task = load_config(self.config, self.sets(folder)).steps()[-1]
        with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
            rows = client[task.db_name]["synapses"].find()
            return digest(folder) | {f"synapse {row['_id']}": json.dumps(row) for row in rows}

    def documents(self, folder: Path) -> dict[str, list[dict]]:
        """Blocks in the database, by step."""
        steps = load_config(self.config, self.sets(folder)).steps()
        first = steps[0]
        with database_uri(first.db_host, first.home) as uri, connect(uri) as client:
            stores = (RunStore(client, step.db_name, step.run) for step in steps)
            return {store.run: list(store.documents()) for store in stores}


def run(arguments: list[str]) -> dict:
    """Run the command to its end; exit code, seconds, blocks of all steps, and those computed now."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    reports = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    return {
        "exit_code": done.returncode,
        "wall_s": max(report["wall_s"] for report in reports),  # steps start together
        "total": sum(report["blocks"]["total"] for report in reports),
        "masked": sum(report["blocks"]["masked"] for report in reports),
        "computed": sum(report["blocks"]["computed"] for report in reports),
    }


def kill_during(arguments: list[str], folder: Path, victim: str, after_s: float) -> int | str:
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
    else:
        print("no worker was there to be killed")
    process.wait()
    return done


def done_now(folder: Path) -> int | str:
    """Done blocks in the database while the command runs."""
    uri = running_uri(folder / "db")
    if uri is None:
        return "?"  # a busy machine: the database did not answer at once
    try:
        with connect(uri) as client:
            return client["em_blocks"].blocks.count_documents({"state": DONE})
    except DatabaseError:
        return "?"  # the command has just ended, and stopped its server


def workers(process: subprocess.Popen) -> list[int]:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [c.pid for c in children if "em_blocks.workers." in " ".join(c.cmdline())]
    except psutil.Error:
        return []


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        print("the victim had just ended by itself")


def digest(folder: Path) -> dict[str, str]:
    """sha256 of every file of the output but ledgers, which name the starts of a run."""
    root = folder / "p.zarr"
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*")) if p.is_file() and p.name != LEDGER
    }


def current_step(documents: dict[str, list[dict]], expected: dict[str, list[dict]]) -> str:
    """Return the first step that is not complete."""
    for name, found in documents.items():
        if sum(d["state"] == DONE for d in found) < len(expected[name]):
            return name
    return "nothing"


def try_all(config: Path, overrides: tuple[str, ...], trials: int, root: Path) -> int:
    """Count the trials that ended differently from an undisturbed run."""
    runs = Trials(config, overrides)
    reference = run(runs.command(root / "undisturbed"))
    assert reference["exit_code"] == 0, reference
    expected, total = runs.results(root / "undisturbed"), reference["total"] - reference["masked"]
    known = runs.documents(root / "undisturbed")
    print(f"{runs.kind} undisturbed: {total} blocks in {reference['wall_s']:.1f} s, "
          f"{len(expected)} files and rows", flush=True)
    different = 0
    for trial in range(trials):
        folder, victim = root / f"trial{trial}", VICTIMS[trial % len(VICTIMS)]
        # Up to 0.75: start-up is not counted, and a run that has ended cannot be killed.
        after_s = random.uniform(0.0, 0.75) * reference["wall_s"]
        then = kill_during(runs.command(folder), folder, victim, after_s)
        found = runs.documents(folder)
        step = current_step(found, known)
        before = sum(d["state"] == DONE for documents in found.values() for d in documents)
        report = run(runs.command(folder))
        found = [d for documents in runs.documents(folder).values() for d in documents]
        same = (
            report["exit_code"] == 0
            and runs.results(folder) == expected
            and len(found) == len({d["_id"] for d in found}) == total
            and report["computed"] == total - before
        )
        different += not same
        print(
            f"trial {trial + 1}: {victim} killed after {after_s:.1f} s with {then} of {total} "
            f"blocks done, {before} at the end (in {step}); again: {report['computed']} computed, "
            f"{'identical' if same else 'DIFFERENT'}", flush=True,
        )
    return different


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=None)
@click.option("--set", "overrides", multiple=True, help="As in the command of the config.")
@click.option("--trials", type=int, help="Per config; default 3, one per victim.", default=3)
@click.option("--seed", default=0, show_default=True)
def main(config: Path | None, overrides: tuple[str, ...], trials: int, seed: int) -> None:
    random.seed(seed)
    different = n = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        configs = [config] if config else [
            small_config(root), segment_config(root, (32, 64, 96)), extract_config(root),
            instances_config(root),
        ]
        for number, path in enumerate(configs):
            different += try_all(path, overrides, trials, root / str(number))
            n += trials
    print(json.dumps({"name": "kill -9 trials with another result", "value": different,
                      "unit": "trials", "against": n, "ratio": different / n}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
