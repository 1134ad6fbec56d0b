"""Panels: one section of every data set of a validation, as it is and as it is predicted.

Files <data set>_<iteration>.png below one folder: raw, and of every head the truth, the prediction and
the errors. The section stays the same for the whole training.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from em_blocks.errors import RunFailedError
from em_blocks.geometry import Triple, triple
from em_blocks.kernels.plots.sections import grey_picture, panel
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.domain import Domain
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.records.whole_file import write_whole
from em_blocks.training.scores.data_sets import DataSets
from em_blocks.training.scores.inference import predict_box, truth_of_box
from em_blocks.training.scores.parts import parts_of

logger = logging.getLogger(__name__)

FOLDER = "panels"
KEPT = 20  # of every data set; each has some 100 kB
SIDE = 384
"""Voxels (y, x) of a section at most, unless a tile is larger."""

Arrays = dict[str, np.ndarray]


class Panels:
    """Pictures of the data sets of a validation, below one folder; only the newest `KEPT` stay.

    Parameters
    ----------
    folder : Path
    config : SetupConfig
    sets : DataSets
    """

    def __init__(self, folder: Path, config: SetupConfig, sets: DataSets):
        self.folder, self.config, self.sets = folder, config, sets
        self._places: dict[str, TrainingData] = {}

    def write(self, network: nn.Module, iteration: int) -> dict[str, np.ndarray]:
        """Draw and store what `network` predicts; returns (height, width, 3) uint8 by data set.

        A disk that refuses is a warning: pictures decide nothing. None are made of predictions that
        are not finite.
        """
        try:
            pictures = {name: self._picture(name, network, iteration) for name in self.sets.names}
        except ArithmeticError:
            return {}
        try:
            for name, picture in pictures.items():
                place = self.folder / f"{_file_name(name)}_{iteration}.png"
                write_whole(place, lambda path, it=picture: Image.fromarray(it).save(path, "PNG"))
                self._prune(_file_name(name))
        except (OSError, RunFailedError) as error:
            logger.warning(
                "the panels of iteration %d cannot be written to %s (%s); the training goes on "
                "without them", iteration, self.folder, error.__cause__ or error,
            )
        return pictures

    def _picture(self, name: str, network: nn.Module, iteration: int) -> np.ndarray:
        if name not in self._places:
            self._places[name] = self._busiest(name)
        data, config = self._places[name], self.config
        targets = self._targets(data)
        size = _common_shape(data, targets)
        z = int(np.argmax(_spread(targets, size)))
        predicted = predict_box(network, data, config)
        grey = self._grey(_middle(np.asarray(data.raw[data.box]), size)[z])
        pictures = {"raw": grey_picture(grey)}
        for head, made in targets.items():
            here = {key: _middle(values, size)[..., z, :, :] for key, values in made.items()}
            found = _middle(predicted[head], size)[..., z, :, :]
            pictures |= self._of_head(head, here, found, grey)
        depth = data.begin[0] + z + (data.end[0] - data.begin[0] - size[0]) // 2
        return panel(
            pictures, title=f"{name}, section {depth} of raw, iteration {iteration}",
            columns=4, width=384, pixel_nm=config.voxel_size[2],
        )

    def _of_head(self, name: str, made: Arrays, found: np.ndarray, grey: np.ndarray) -> Arrays:
        head = self.config.heads[name]
        return {
            f"{name}: truth": head.overlay(made["target"], grey),
            f"{name}: prediction": head.overlay(found, grey),
            f"{name}: errors": head.mistakes(found, made, grey),
        }

    def _busiest(self, name: str) -> TrainingData:
        """Find the part of a data set whose targets differ most: rare objects are in few of them."""
        shape = panel_shape(self.config.tile_shape)
        parts = [part for data in self.sets.boxes(name) for part in parts_of(data, shape)]
        return max(parts, key=self._interest)

    def _interest(self, part: TrainingData) -> float:
        targets = self._targets(part)
        return float(_spread(targets, _common_shape(part, targets)).max())

    def _targets(self, data: TrainingData) -> dict[str, Arrays]:
        """Compute the targets of the heads that can be drawn: those that fit into the part."""
        voxel_size = self.config.voxel_size
        truth = truth_of_box(data, voxel_size)
        return {
            name: head.targets(truth) for name, head in self.config.heads.items()
            if {"target", "mask"} <= set(head.arrays)
            and all(n > 2 * r for n, r in zip(truth.shape, head.reach(voxel_size), strict=True))
        }

    def _grey(self, raw: np.ndarray) -> np.ndarray:
        low, high = Domain.of(self.config).intensities
        return np.clip((raw.astype(np.float32) - low) / (high - low), 0, 1)

    def _prune(self, name: str) -> None:
        pattern = re.compile(re.escape(name) + r"_(\d+)\.png")
        found = {int(match[1]): file for file in self.folder.iterdir()
                 if (match := pattern.fullmatch(file.name))}
        for iteration in sorted(found)[:-KEPT]:
            found[iteration].unlink()


def panel_shape(tile_shape: Triple) -> Triple:
    """Return the shape (z, y, x) of whole tiles that panels are cut of."""
    z, y, x = tile_shape
    return z, max(1, SIDE // y) * y, max(1, SIDE // x) * x


def _common_shape(data: TrainingData, targets: Mapping[str, Arrays]) -> Triple:
    """Return the shape (z, y, x) of the middle of a part that all targets have."""
    shapes = [made["target"].shape[-3:] for made in targets.values()]
    whole = (last - first for first, last in zip(data.begin, data.end, strict=True))
    return triple(min(sizes) for sizes in zip(whole, *shapes, strict=True))


def _spread(targets: Mapping[str, Arrays], shape: Triple) -> np.ndarray:
    """Compute how much the known targets of every section (z) differ; each head counts alike."""
    total = np.zeros(shape[0])
    for made in targets.values():
        target, mask = (_middle(made[key], shape) for key in ("target", "mask"))
        spread = np.where(mask > 0, target, 0).std(axis=(-1, -2)).reshape(-1, shape[0]).mean(axis=0)
        total += spread / max(float(np.abs(target).max()), 1e-9)
    return total


def _middle(values: np.ndarray, shape: Triple) -> np.ndarray:
    """Cut the middle of (..., z, y, x) values."""
    sides = [(n - m) // 2 for n, m in zip(values.shape[-3:], shape, strict=True)]
    return values[(..., *(slice(s, s + m) for s, m in zip(sides, shape, strict=True)))]


def _file_name(data_set: str) -> str:
    """Turn the name of a data set into that of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", data_set)
