"""Snapshots: samples of a training with targets and predictions, stored for inspection.

A snapshot is a zarr container of volumes in one frame, whose origin is the corner of the raw data::

    <iteration>.zarr/raw                  as the network saw it: augmented and normalised
    <iteration>.zarr/labels               smaller than raw by the context of the network
    <iteration>.zarr/<head>/target        what the head should have said (all its arrays)
    <iteration>.zarr/<head>/mask          where the target counts
    <iteration>.zarr/<head>/prediction    what it said, after the step
    <iteration>.zarr/synapses.parquet     pairs with a site in the labels, if heads learn synapses
    <iteration>.png                       one section of all of them

A sample is augmented, so its place in the world is lost: positions count from the corner of raw.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame
from em_blocks.kernels.plots.sections import grey_picture, overlay_picture, panel
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import LABELS, POST, PRE, Truth
from em_blocks.training.data.domain import Domain
from em_blocks.training.data.samples import Sample
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import write_synapses

FOLDER = "snapshots"
KEPT = 5  # each is a few MB, and a training makes hundreds
CHUNK = 64
_NAME = re.compile(r"(\d+)\.(zarr|png)$")


class Snapshots:
    """Snapshots below one folder; only the newest `KEPT` stay.

    Parameters
    ----------
    folder : Path
    config : SetupConfig
    """

    def __init__(self, folder: Path, config: SetupConfig):
        self.folder, self.config = folder, config

    def write(
        self, iteration: int, sample: Sample, predicted: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Store a sample; a snapshot of the same iteration is replaced.

        Parameters
        ----------
        iteration : int
            Iterations done, which names the snapshot.
        sample : Sample
        predicted : mapping of head to (channels, z, y, x) array
            Activated output for ``sample.raw``.

        Returns
        -------
        (height, width, 3) uint8 array
            The picture.

        Raises
        ------
        VolumeError
            If the disk refuses; the snapshots that were there are as they were.
        """
        arrays = sample.arrays | {f"{name}/prediction": it for name, it in predicted.items()}
        picture = self._picture(iteration, sample, arrays)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
                self._write_volumes(Path(temporary, f"{iteration}.zarr"), sample, arrays)
                Image.fromarray(picture).save(Path(temporary, f"{iteration}.png"))
                _move(Path(temporary), self.folder)
            self._prune()
        except OSError as error:
            raise VolumeError(
                f"The snapshot of iteration {iteration} cannot be written to {self.folder}: "
                f"{error.strerror or error}. Make room on the disk and continue with --resume, or "
                "set training.snapshot_every to 0."
            ) from error
        return picture

    def iterations(self) -> list[int]:
        """Iterations of which there are snapshots, in rising order."""
        matches = (_NAME.match(file.name) for file in self.folder.glob("*.*"))
        return sorted({int(match.group(1)) for match in matches if match})

    def _write_volumes(
        self, container: Path, sample: Sample, arrays: Mapping[str, np.ndarray]
    ) -> None:
        size, truth = np.asarray(self.config.voxel_size), sample.truth
        corner = (np.array(sample.raw.shape) - truth.shape) // 2 * size
        _write_volume(container / "raw", sample.raw, Frame(size))
        inner = Frame(size, corner)
        for name, labels in truth.labels.items():
            place = "labels" if name == LABELS else f"labels_{name}"
            _write_volume(container / place, labels, inner, labels=True)
        for name, mask in truth.masks.items():
            _write_volume(container / f"mask_{name}", mask, inner)
        for name, head in self.config.heads.items():
            for array in (*head.arrays, "prediction"):
                _write_volume(container / name / array, arrays[f"{name}/{array}"], inner)
        if truth.points:
            write_synapses(container / "synapses.parquet", _synapses(truth, corner))

    def _picture(
        self, iteration: int, sample: Sample, arrays: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        z = _section([arrays[f"{head}/target"] for head in self.config.heads])
        labels = next(iter(sample.truth.labels.values()))
        normal, (low, high) = self.config.normalization, Domain.of(self.config).intensities
        raw = (_center(sample.raw, labels.shape)[z] - normal.shift) / normal.scale
        grey = (raw - low) / (high - low)
        pictures = {
            "raw": grey_picture(grey), "labels": overlay_picture(np.clip(grey, 0, 1), labels[z])
        }
        for name, head in self.config.heads.items():
            for what in ("target", "prediction"):
                values = arrays[f"{name}/{what}"][..., z, :, :]
                pictures[f"{name}: {what}"] = head.overlay(values, np.clip(grey, 0, 1))
        return panel(
            pictures, title=f"{self.config.name}, iteration {iteration}", columns=2, width=384,
            pixel_nm=self.config.voxel_size[2],
        )

    def _prune(self) -> None:
        for iteration in self.iterations()[:-KEPT]:
            shutil.rmtree(self.folder / f"{iteration}.zarr", ignore_errors=True)
            (self.folder / f"{iteration}.png").unlink(missing_ok=True)


def _write_volume(path: Path, values: np.ndarray, frame: Frame, **attributes) -> None:
    shape = values.shape[-3:]
    volume = Volume.create(
        path, shape=shape, dtype=values.dtype, frame=frame, attributes=attributes,
        channels=len(values) if values.ndim == 4 else None,
        chunk_shape=tuple(min(n, CHUNK) for n in shape),
    )
    volume.write(volume.box, np.ascontiguousarray(values))


def _synapses(truth: Truth, corner: np.ndarray) -> Synapses:
    """The pairs of a sample, nm from the corner of raw."""
    pre, post = truth.points[PRE] + corner, truth.points[POST] + corner
    return Synapses(id=np.arange(1, len(pre) + 1), pre=pre, post=post)


def _move(source: Path, folder: Path) -> None:
    """Put everything in `source` into `folder`; what has its name there goes to `source`."""
    old = source / "old"
    old.mkdir()
    for new in [path for path in source.iterdir() if path != old]:
        place = folder / new.name
        if place.exists():
            place.rename(old / new.name)
        new.rename(place)


def _center(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of an array (z, y, x)."""
    sides = [(n - m) // 2 for n, m in zip(values.shape, shape, strict=True)]
    return values[tuple(slice(s, s + m) for s, m in zip(sides, shape, strict=True))]


def _section(targets: list[np.ndarray]) -> int:
    """The section in which targets differ most: synapses are in few of them."""
    spread = [target.std(axis=(-1, -2)) for target in targets]  # (..., z)
    spread = [values.reshape(-1, values.shape[-1]).mean(axis=0) for values in spread]
    return int(np.argmax(sum(values / max(values.max(), 1e-9) for values in spread)))
