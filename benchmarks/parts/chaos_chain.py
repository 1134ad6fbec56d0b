"""A small predict -> segment -> extract synapses chain that takes its time in many little blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage

from em_blocks.geometry import Frame
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.models.setup import Setup
from em_blocks.volumes import Volume
from parts.noise import SETUPS

SHAPE, BLOCK, TILE = (40, 160, 160), (10, 20, 20), (10, 20, 20)
FRAME = Frame((40.0, 4.0, 4.0), (400.0, 40.0, -20.0))
NEIGHBORHOOD = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-2, 0, 0), (0, -6, 0), (0, 0, -6))
VERBS = {"predict": "predict", "segment": "segment", "synapses": "extract-synapses"}
"""The commands in their order, by the run names of their configs."""

# Fixed formulas instead of a trained network: what matters is that its outputs depend on every
# voxel that it sees, that affinities make fragments, and that the indicator has sites.
NETWORK = '''\
"""Affinities where it is bright, sites where it is dark, vectors along the gradient."""

import torch
from torch import nn
from torch.nn import functional


class Formulas(nn.Module):
    context = (2, 7, 7)

    def __init__(self, neighborhood):
        super().__init__()
        self.neighborhood = neighborhood
        self.limits = nn.Parameter(torch.zeros(2))

    def check_tile(self, output_shape):
        """Any tile will do."""

    def predict(self, raw, heads=None):
        smooth = functional.avg_pool3d(raw, (1, 3, 3), stride=1)
        outputs = {
            "affinities": self.affinities(smooth),
            "indicator": torch.sigmoid(20 * (self.limits[1] - moved(smooth, (0, 0, 0)))),
            "direction_vectors": self.vectors(smooth),
        }
        return {name: outputs[name] for name in heads or outputs}

    forward = predict

    def affinities(self, smooth):
        here = moved(smooth, (0, 0, 0))
        pairs = [torch.minimum(here, moved(smooth, shift)) for shift in self.neighborhood]
        return torch.sigmoid(12 * (torch.cat(pairs, dim=1) - self.limits[0]))

    def vectors(self, smooth):
        slopes = [
            moved(smooth, shift) - moved(smooth, tuple(-s for s in shift))
            for shift in ((1, 0, 0), (0, 3, 0), (0, 0, 3))
        ]
        return 150 * torch.cat(slopes, dim=1)


def moved(values, shift):
    """Return the part of `values` (context 2, 6, 6) that the output shows, from `shift` voxels on."""
    starts = [c + s for c, s in zip((2, 6, 6), shift)]
    ends = [n - c + s for n, c, s in zip(values.shape[2:], (2, 6, 6), shift)]
    z, y, x = (slice(a, b) for a, b in zip(starts, ends))
    return values[:, :, z, y, x]


def build(config):
    return Formulas(config.heads["affinities"].neighborhood)
'''


def make_inputs(folder: Path) -> None:
    """A raw volume of neurites with synapses, and a setup that predicts it."""
    image = phantom(SHAPE, voxel_size=FRAME.voxel_size, seed=3, neurite_nm=200.0,
                    synapses_per_um3=15).raw
    raw = Volume.create(
        str(folder / "raw.zarr/raw"), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=(20, 40, 40)
    )
    raw.write(raw.box, image)
    _make_setup(folder / "setup", ndimage.uniform_filter(image.astype(np.float32), (1, 3, 3)) / 255)


def _make_setup(folder: Path, smooth: np.ndarray) -> None:
    """A setup whose limits are quantiles of the image as the network sees it, 0..1."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "network.py").write_text(NETWORK)
    config = json.loads((SETUPS / "synapse_multitask/config.json").read_text())
    affinities = {"channels": len(NEIGHBORHOOD), "neighborhood": NEIGHBORHOOD}
    config["heads"]["affinities"] = affinities
    config |= {"normalization": {"scale": 1 / 255, "shift": 0.0}, "tile_shape": TILE}
    (folder / "config.json").write_text(json.dumps(config))
    network = Setup.from_folder(folder).build()
    limits = torch.tensor(np.quantile(smooth, [0.25, 0.01]), dtype=torch.float32)
    save_file({**network.state_dict(), "limits": limits}, folder / "checkpoints/best.safetensors")


def write_configs(folder: Path, *, inputs: Path, output: Path, **options) -> list[Path]:
    """Configs of the chain, in the order of `VERBS`; `options` go into each of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    predicted = output / "predictions.zarr"
    values = {
        "predict": {
            "kind": "predict", "raw": str(inputs / "raw.zarr/raw"), "setup": str(inputs / "setup"),
            "output": str(predicted),
        },
        "segment": {
            "kind": "segment", "affinities": f"{predicted}/affinities", "tile_shape": TILE,
            "output": str(output / "segmentation.zarr"), "context": [2, 6, 6],
            "fragments": {"method": "watershed", "small": 30}, "super_block": [2, 4, 4],
            "thresholds": [0.5], "chunk_shape": BLOCK,
        },
        "synapses": {
            "kind": "extract_synapses", "indicator": f"{predicted}/indicator",
            "vectors": f"{predicted}/direction_vectors",
            "detection": {"method": "components", "threshold": 0.6, "min_size": 3},
            "vector": "mean", "context_nm": [40, 24, 24], "max_extent_nm": [400, 400, 400],
        },
    }
    paths = []
    for run, settings in values.items():
        paths.append(folder / f"{run}.json")
        paths[-1].write_text(json.dumps({"run": run, "block_shape": BLOCK, **settings, **options}))
    return paths
