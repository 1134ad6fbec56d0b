"""The steps of gpu_check.sh that are no benchmark of their own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console

from em_blocks.geometry import Frame
from em_blocks.models.setup import Setup, load_weights
from em_blocks.nets.inference import (
    HeadFormat,
    TilePredictor,
    best_device,
    device_name,
    hardware_precisions,
)
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume

sys.path.insert(0, str(Path(__file__).parents[1]))
from parts.noise import SETUPS, noise

ROOT = Path(__file__).parents[2]
STEPS = {"fp32": 1.0, "bf16": 12.0, "fp16": 3.0}
"""Steps of what is stored (1/255; 4 nm of vectors) by which a value may differ from the CPU's."""


def predicted(setup: Setup, device: torch.device, precision: str) -> dict[str, np.ndarray]:
    """Return one tile of noise, in float32."""
    network = setup.build()
    load_weights(network, setup.checkpoint_path("best"))
    tile = tuple(2 * f * max(1, 8 // f) for f in network.tile_factor)
    normal = setup.config.normalization
    predictor = TilePredictor(
        network, heads={name: HeadFormat("float32") for name in setup.config.heads}, tile_shape=tile,
        scale=normal.scale, shift=normal.shift, precision=precision, device=device,
    )
    shape = [t + 2 * c for t, c in zip(tile, network.context, strict=True)]
    raw = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    return predictor.predict(raw, (0, 0, 0), tile)[0]


@click.group()
def main() -> None:
    pass


@main.command()
def exactness() -> None:
    """Compare every shipped network on the device with the CPU in fp32."""
    device = best_device()
    print(f"{device_name(device)}, torch {torch.__version__}")
    for path in sorted(SETUPS.glob("*/config.json")):
        setup = Setup.from_folder(path.parent)
        expected = predicted(setup, torch.device("cpu"), "fp32")
        for precision in hardware_precisions(device):
            found = predicted(setup, device, precision)
            for name, head in setup.config.heads.items():
                scale = head.storage.scales[head.storage.dtype]
                off = scale * float(np.abs(found[name] - expected[name]).max())
                print(f"{setup.config.name} {name} {precision}: at most {off:.3g} steps off", flush=True)
                assert off <= STEPS[precision], f"more than {STEPS[precision]} steps"


@main.command()
def training() -> None:
    """Train a shipped network for a few steps with autocast, on a small phantom."""
    phantom = {"phantom": {"shape": [24, 160, 160], "seed": 11}}
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "precision": "bf16", "sources": [phantom], "validation": [phantom | {"end": [4, 32, 32]}],
            "output_shape": [4, 32, 32], "validate_every": 6, "checkpoint_every": 6,
        }
        options = [
            part for name, value in settings.items()
            for part in ("--set", f"training.{name}={json.dumps(value)}")
        ]
        command = [
            sys.executable, ROOT / "pipelines/train.py", SETUPS / "affinities_anisotropic/config.json",
            "--iterations", "6", "--output", folder, "--set", "tile_shape=[4, 32, 32]", *options,
        ]
        subprocess.run(command, check=True, cwd=ROOT)
        record = json.loads((Path(folder) / "checkpoints/record.json").read_text())
    assert all(math.isfinite(value) for value in record["best"].values() if isinstance(value, float))


@main.command()
@click.option("--cpu", is_flag=True, help="Two workers, a small volume.")
def workers(cpu: bool) -> None:
    """Predict with many workers on one device, and with one: the same bytes."""
    block, n = ((16, 64, 64), 2) if cpu else ((16, 256, 256), 8)
    frame = Frame((40.0, 4.0, 4.0), (400.0, 40.0, 20.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = noise(folder, (block[0] * 2 * n, *block[1:]), frame, (16, 64, 64))
        made = {}
        for count in (1, n):
            task = Predict.from_dict({
                "kind": "predict", "run": f"workers{count}", "raw": raw, "num_workers": count,
                "setup": str(SETUPS / "affinities_anisotropic"), "block_shape": block,
                "tile_shape": (16, 64, 64), "precision": hardware_precisions(best_device())[-1],
                "output": str(folder / f"{count}/p.zarr"),
            })
            report = run_blockwise(task, console=Console(stderr=True))
            assert report.ok, report
            volume = Volume.open(task.output_specs()[0].path)
            made[count] = volume.read(volume.box)
            print(f"{count} workers: {report.mvox_s:.3g} Mvoxel/s", flush=True)
    differing = int((made[1] != made[n]).sum())
    print(f"{differing} of {made[1].size} values differ")
    # Threads of a CPU are fewer per worker, and sums of floats follow them in the last digit.
    assert differing == 0 or (cpu and np.abs(made[1].astype(int) - made[n].astype(int)).max() <= 1)


if __name__ == "__main__":
    main()
