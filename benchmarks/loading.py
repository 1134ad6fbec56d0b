"""Waiting of a training for its batches, and the memory of its loaders with few and many crops.

Crops of thick sections with blobs are made, `em-blocks new organelle` writes a setup for them, and
`em-blocks train` trains it: the share of waiting is that of its record, with the default number of
loaders and with the thread of the training alone (``training.loaders`` 0). Memory is the peak of a
loader's resident set.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from scipy import ndimage

from em_blocks.geometry import Frame
from em_blocks.volumes import Volume

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]
LOADER = "em_blocks.training.loading.worker"
FRAME = Frame((50.0, 4.6, 4.6), (400.0, 46.0, 9.2))


class Trained(NamedTuple):
    """What was measured of one training."""

    waiting: float
    seconds: float
    loader_mb: float


def make_crop(path: Path, number: int, shape: tuple[int, int, int]) -> None:
    """Write raw and labels of blobs into a container."""
    rng = np.random.default_rng(number)
    field = ndimage.gaussian_filter(rng.normal(size=shape), (0.5, 8, 8))
    blobs = field > np.quantile(field, 0.94)
    raw = 150 - 60 * blobs + rng.normal(0, 20, shape)
    for name, values in (("raw", raw.clip(0, 255)), ("mito", blobs)):
        volume = Volume.create(
            str(path / name), shape=shape, dtype="uint8", frame=FRAME, chunk_shape=(1, 256, 256)
        )
        volume.write(volume.box, values.astype("uint8"))


def make_setup(folder: Path, crops: int, shape: tuple[int, int, int]) -> Path:
    """Make crops and a setup for them; returns its folder."""
    entries = {}
    for number in range(crops):
        make_crop(folder / f"{number}.zarr", number, shape)
        entries[f"crop_{number}"] = {
            "file": f"{number}.zarr", "voxel_size": FRAME.voxel_size, "raw": "raw",
            "labels": {"mito": 1}, "offset": [8, 10, 2], "shape": shape,
        }
    (folder / "data.json").write_text(json.dumps(entries))
    small = {"crop_0": entries["crop_0"] | {"shape": [1, *shape[1:]]}}
    (folder / "validation.json").write_text(json.dumps(small))
    subprocess.run(
        [*COMMAND, "new", "organelle", "mito", "--data", folder / "data.json", "--output",
         folder / "setup", "--validation", folder / "validation.json", "--memory-gb", "8"], check=True,
    )
    return folder / "setup"


def train(setup: Path, output: Path, iterations: int, *options: str) -> Trained:
    """Train, watching the memory of the loaders."""
    every = (f"training.validate_every={iterations}", f"training.checkpoint_every={iterations}",
             f"training.iterations={iterations}", *options)
    sets = [part for option in every for part in ("--set", option)]
    began, peak = time.monotonic(), 0.0
    process = subprocess.Popen([*COMMAND, "train", setup, "--output", output, *sets])
    while process.poll() is None:
        peak = max([peak, *map(peak_mb, loaders_of(process.pid))])
        time.sleep(0.2)
    assert process.returncode == 0
    record = json.loads((output / "checkpoints" / "record.json").read_text())
    return Trained(record["waiting"], time.monotonic() - began, peak)


def loaders_of(pid: int) -> list[int]:
    """Return the loaders that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            try:
                if LOADER in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
            except OSError:  # it ended meanwhile
                continue
    return found


def peak_mb(pid: int) -> float:
    """Return the peak of the resident set of a process, MB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) / 1000 if lines else 0.0


@click.command()
@click.option("--iterations", default=30, show_default=True)
@click.option("--crops", default=(4, 100), nargs=2, show_default=True)
@click.option("--side", default=384, show_default=True, help="Voxels (y, x) of a crop.")
def main(iterations: int, crops: tuple[int, int], side: int) -> None:
    """Train with few and many crops, with loaders and without."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for count in crops:
            folder = Path(temporary, str(count))
            setup = make_setup(folder, count, (8, side, side))
            found[count] = train(setup, folder / "loaders", iterations)
        alone = train(setup, folder / "thread", iterations, "training.loaders=0")
    few, many = (found[count] for count in crops)
    for name, made in (*((f"{n} crops", it) for n, it in found.items()), ("thread", alone)):
        memory = f"loader {made.loader_mb:.0f} MB"
        print(f"{name}: waiting {made.waiting:.1%}, {made.seconds:.0f} s, {memory}")
    print(f"memory of a loader, {crops[1]} crops over {crops[0]}: {many.loader_mb / few.loader_mb:.2f}")
    print(json.dumps({
        "name": "waiting_for_batches", "value": round(many.waiting, 4), "unit": "share of the time",
        "against": 0.1, "ratio": round(many.waiting / 0.1, 3),
    }))


if __name__ == "__main__":
    main()
