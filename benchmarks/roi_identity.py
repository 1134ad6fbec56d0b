"""Check that the prediction of a ROI is the crop of a prediction of everything, byte for byte.

Every shipped setup is applied to a volume of noise as a whole, and to random ROIs of it, block by block
in this process. The last line gives the ROIs that differ in any byte of any output.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import numpy as np

from em_blocks.geometry import Box, Frame, Triple
from em_blocks.models.setup import Setup
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from parts.noise import SETUPS, noise

OFFSET = (400.0, 41.0, -20.0)


def predicted(task: Predict) -> dict[str, np.ndarray]:
    """Return the outputs of all blocks, by head."""
    task.check()
    task.check_alignment()
    for spec in task.output_specs():
        spec.create(task.grid(), "roi identity")
    with task.open(RunContext(task.measure())) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    volumes = {spec.name: Volume.open(spec.path) for spec in task.output_specs()}
    return {name: volume.read(volume.box) for name, volume in volumes.items()}


def small_tile(setup: Setup) -> Triple:
    """A legal tile of about 16 voxels, or one z section in thin ones."""
    factor = setup.build().tile_factor
    return tuple(f * max(1, (8 if axis == 0 else 16) // f) for axis, f in enumerate(factor))


def random_box(rng: np.random.Generator, shape: Triple) -> Box:
    begin = tuple(int(rng.integers(0, n - 1)) for n in shape)
    size = (int(rng.integers(1, min(12, n - b) + 1)) for n, b in zip(shape, begin, strict=True))
    return Box(begin, tuple(size))


def differing(folder: Path, name: str, n: int, **options) -> int:
    """Count the random ROIs, of `n`, that differ from the crop of the prediction of everything."""
    setup = Setup.from_folder(SETUPS / name)
    tile = small_tile(setup)
    frame = Frame(setup.config.voxel_size, OFFSET)
    raw = noise(folder, tuple(2 * t + 3 for t in tile), frame, (7, 16, 16))
    values = {
        "kind": "predict", "run": "roi", "raw": raw, "setup": str(SETUPS / name), "tile_shape": tile,
        "block_shape": tile, **options,
    }
    shape = Volume.open(raw).shape
    whole = predicted(Predict.from_dict({**values, "output": str(folder / "whole.zarr")}))
    rng, bad = np.random.default_rng(0), 0
    for number in range(n):
        box = random_box(rng, shape)
        roi = frame.to_roi(box)
        part = predicted(Predict.from_dict({
            **values, "output": str(folder / f"{number}.zarr"),
            "roi": {"offset": roi.offset, "shape": roi.shape},
        }))
        bad += any(
            part[head].tobytes() != whole[head][(..., *box.slices)].tobytes() for head in whole
        )
    return bad


@click.command()
@click.option("--rois", default=20, show_default=True, help="Random ROIs of each setup.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32")
@click.option("--augmentation", default="none", help="As the key 'test_time_augmentation'.")
def main(rois: int, precision: str, augmentation: str) -> None:
    bad, total = 0, 0
    for path in sorted(SETUPS.glob("*/config.json")):
        name = path.parent.name
        # Stored without rounding, so that any differing bit is seen.
        heads = {head: {"dtype": "float32"} for head in json.loads(path.read_text())["heads"]}
        with tempfile.TemporaryDirectory() as folder:
            found = differing(
                Path(folder), name, rois, precision=precision, outputs=heads,
                test_time_augmentation=augmentation,
            )
        print(f"{name}: {found} of {rois} ROIs differ", flush=True)
        bad, total = bad + found, total + rois
    print(json.dumps({"name": "ROIs that differ from the crop of the whole", "value": bad,
                      "unit": "ROIs", "against": total, "ratio": round(bad / total, 4)}))


if __name__ == "__main__":
    main()
