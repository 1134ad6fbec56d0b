"""Blockwise prediction, for several block shapes, against one forward pass of the whole volume.

fp32, stored as float32. The one forward pass needs memory for the whole volume: about 100 bytes per
voxel and feature of the network's finest level. By default a small volume of noise; ``--config`` takes
any prediction config, for example ``configs/fib25_affinities_fp32.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console

from em_blocks.geometry import Box
from em_blocks.models.setup import Setup, load_weights
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from parts.noise import small_config

TOLERANCE = 1e-5


def one_forward(task: Predict) -> dict[str, np.ndarray]:
    """Predict all heads of the whole volume in one pass, without any code of the blockwise path."""
    setup, raw = Setup.from_folder(task.setup), Volume.open(task.raw)
    network = setup.build().eval()
    load_weights(network, setup.checkpoint_path(task.checkpoint))
    whole = tuple(-(-n // f) * f for n, f in zip(raw.shape, network.tile_factor, strict=True))
    seen = raw.read(Box((0, 0, 0), whole).grow(network.context), outside=task.padding)
    normal = setup.config.normalization
    with torch.inference_mode():
        values = torch.from_numpy(seen.astype(np.float32) * normal.scale + normal.shift)
        outputs = network.predict(values[None, None])
    inside = tuple(slice(0, n) for n in raw.shape)
    return {name: out[0].numpy()[(..., *inside)] for name, out in outputs.items()}


def difference(task: Predict, expected: dict[str, np.ndarray]) -> float:
    """Largest absolute difference of a blockwise run."""
    assert run_blockwise(task, console=Console(stderr=True)).ok
    volumes = {spec.name: Volume.open(spec.path) for spec in task.output_specs()}
    return max(
        float(np.abs(volume.read(volume.box) - expected[name]).max())
        for name, volume in volumes.items()
    )


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=None)
def main(config: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = config or small_config(folder)
        overrides = ('outputs={"affinities": {"dtype": "float32"}}', "precision=fp32")
        task = Predict.from_file(config, (f"output={folder / 'p.zarr'}", *overrides))
        expected = one_forward(task)
        worst = 0.0
        for n, factors in enumerate(((1, 1, 1), (2, 1, 2), (1, 4, 1))):
            shape = tuple(b * f for b, f in zip(task.block_shape, factors, strict=True))
            output = str(folder / f"run{n}" / "p.zarr")
            found = difference(
                task.model_copy(update={"block_shape": shape, "output": output}), expected
            )
            print(f"blocks of {shape} voxels: largest difference {found:.2e}")
            worst = max(worst, found)
    print(json.dumps({"name": "blockwise against one forward pass", "value": worst,
                      "unit": "affinity", "against": TOLERANCE, "ratio": round(worst / TOLERANCE, 3)}))
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
