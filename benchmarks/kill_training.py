"""Kill a training with ``kill -9`` at random moments, resume it, compare with an undisturbed one.

A small network learns two partly annotated classes of a generated volume, with the loaders of the
config. It is seeded and computes in fp32, so every weight of every checkpoint must be the same, byte for
byte, and the history of all scores too. ``--setup`` takes any setup that trains on a CPU in minutes.
"""

from __future__ import annotations

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
import torch
from safetensors.torch import load_file

from parts.class_volumes import class_setup

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()", "train"]


def start(setup: Path, output: Path, *options: str) -> subprocess.Popen:
    arguments = [*COMMAND, str(setup), "--output", str(output), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with output.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            arguments, env=environment, start_new_session=True, stdout=log, stderr=log
        )


def iteration_of(folder: Path) -> int:
    """Return the iteration of the newest state."""
    return max((int(path.stem[6:]) for path in folder.glob("checkpoints/state_*.pt")), default=0)


def undisturbed(setup: Path, output: Path) -> tuple[float, float]:
    """Train to the end; returns the seconds to the first state, and all."""
    began, first_s = time.monotonic(), 0.0
    process = start(setup, output)
    while process.poll() is None:
        if not first_s and iteration_of(output):
            first_s = time.monotonic() - began
        time.sleep(0.05)
    assert process.returncode == 0, output.with_suffix(".log").read_text()
    return first_s, time.monotonic() - began


def kill_at_random(process: subprocess.Popen, output: Path, work_s: float, rng: random.Random) -> bool:
    """Kill a process and its children: in its start, or up to `work_s` after its first new state.

    Returns whether it still ran.
    """
    before, began = iteration_of(output), time.monotonic()
    if rng.random() < 0.25:
        wait_s = rng.uniform(0, 10)
    else:
        while process.poll() is None and iteration_of(output) == before:
            time.sleep(0.01)
        wait_s = rng.uniform(0, work_s)
    try:
        process.wait(timeout=wait_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"killed after {time.monotonic() - began:.0f} s, iteration {iteration_of(output)} saved",
          flush=True)
    return True


def differing(one: Path, two: Path) -> list[str]:
    """Name the weights, and the scores of the record, in which two trainings differ."""
    found = []
    names = [{path.name for path in folder.glob("checkpoints/*.safetensors")} for folder in (one, two)]
    found += [f"only one has {name}" for name in names[0] ^ names[1]]
    for name in sorted(names[0] & names[1]):
        weights = [load_file(folder / "checkpoints" / name) for folder in (one, two)]
        found += [f"{name}: {key}" for key in weights[0].keys() | weights[1].keys()
                  if not torch.equal(weights[0][key], weights[1][key])]
    records = [json.loads((folder / "checkpoints/record.json").read_text()) for folder in (one, two)]
    return found + ["history"] * (records[0]["history"] != records[1]["history"])


@click.command()
@click.option("--setup", type=click.Path(path_type=Path), help="Default: one that is generated.")
@click.option("--kills", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(setup: Path | None, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        setup = setup or class_setup(root / "setup")
        first_s, length = undisturbed(setup, root / "whole")
        print(f"undisturbed: {iteration_of(root / 'whole')} iterations in {length:.0f} s, "
              f"the first state after {first_s:.0f} s", flush=True)
        done, killed = root / "killed", 0
        for _ in range(kills):
            resume = ["--resume"] if iteration_of(done) else []
            process = start(setup, done, *resume)
            killed += kill_at_random(process, done, (length - first_s) / (kills + 1), rng)
        last = start(setup, done, *(["--resume"] if iteration_of(done) else []))
        assert last.wait() == 0, done.with_suffix(".log").read_text()
        wrong = differing(root / "whole", done)
        print("\n".join(wrong) or "all weights and scores are identical")
        print(json.dumps({
            "name": f"differences after {killed} kills of a training", "value": len(wrong),
            "unit": "weights and histories", "against": 0, "ratio": None,
        }))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
