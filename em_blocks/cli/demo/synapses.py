"""The demo's synapses: detected, stored, mapped to segments, scored and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import em_blocks.setups
from em_blocks.cli.common import opened_store
from em_blocks.kernels.evaluation.partner_matching import PartnerScore, cremi_score
from em_blocks.kernels.plots.sections import grey_picture
from em_blocks.kernels.synapses.partner_ids import ids_of_partners
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.tasks.base import RunConfig

SETUP = Path(em_blocks.setups.__file__).parent / "synapse_multitask"
# Chosen on the volume that the training was validated with (seed 41).
THRESHOLD, MIN_SIZE = 0.98, 10
SCORES = (0, 20, 40, 80, 120, 200)
"""Sums of the indicator over a site's voxels that the table shows."""


class Partners(NamedTuple):
    """Partners that are compared."""

    found: Synapses
    truth: Synapses
    found_neurons: np.ndarray  # (n, 2) true neurons at the sites of what was found
    truth_neurons: np.ndarray  # (m, 2)


def prediction(block_shape: tuple[int, int, int]) -> dict:
    """Return the contents of predict_synapses.json; paths are relative to it."""
    return {
        "kind": "predict",
        "run": "demo_synapse_maps",
        "raw": "volume.zarr/raw",
        "setup": str(SETUP),
        "checkpoint": "best",
        "output": "synapses.zarr",
        "outputs": {
            "indicator": {"dtype": "uint8", "scale": 255},
            "direction_vectors": {"dtype": "int8", "scale": 0.25},
        },
        "block_shape": block_shape,
        "num_workers": 2,
    }


def extraction(block_shape: tuple[int, int, int]) -> dict:
    """Return the contents of extract_synapses.json."""
    return {
        "kind": "extract_synapses",
        "run": "demo_synapses",
        "indicator": "synapses.zarr/indicator",
        "vectors": "synapses.zarr/direction_vectors",
        "block_shape": block_shape,
        "detection": {
            "method": "components", "threshold": THRESHOLD, "site": "peak", "min_size": MIN_SIZE,
        },
        "vector": "mean",
        "num_workers": 2,
    }


def mapping(segments: str) -> dict:
    """Return the contents of map_synapses.json."""
    return {
        "kind": "map_synapses",
        "run": "demo_map",
        "run_dir": ".",
        "synapses": "demo_synapses",
        "labels": segments,
        "labels_are_segments": True,
        "search_radius_nm": 40,
        "outside": "leave",
    }


def read_partners(folder: Path, config: RunConfig) -> Partners:
    """Synapses in the database, and those of the volume."""
    from em_blocks.db.synapses import SynapseStore
    from em_blocks.volumes.synapse_files import read_synapses

    with opened_store(config) as store:
        found = SynapseStore(store.client, config.db_name, config.run).read()
    truth = read_synapses(folder / "volume.zarr/synapses.parquet")
    neurons = Volume.open(str(folder / "volume.zarr/neurons"))
    labels = neurons.read(neurons.box)
    frame = neurons.frame
    ids = (
        ids_of_partners(labels, table, voxel_size=frame.voxel_size, offset=frame.offset)
        for table in (found, truth)
    )
    return Partners(found, truth, *ids)


def show_scores(partners: Partners) -> PartnerScore:
    """Print precision, recall and F-score by the score of the partners found; return the best."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{len(partners.found)} synaptic partners found, {len(partners.truth)} in the volume "
        "(match: both sites within 400 nm)"
    )
    for name in ("score at least", "found", "precision", "recall", "F-score", "F in the same neurons"):
        table.add_column(name, justify="right")
    scores = list(_scores(partners))
    for least, count, by_place, by_neuron in scores:
        table.add_row(
            str(least), str(count), f"{by_place.precision:.3f}", f"{by_place.recall:.3f}",
            f"{by_place.fscore:.3f}", f"{by_neuron.fscore:.3f}",
        )
    Console().print(table)
    return max((by_place for _, _, by_place, _ in scores), key=lambda score: score.fscore)


def pictures(folder: Path, raw: np.ndarray, z: int, partners: Partners) -> dict[str, np.ndarray]:
    """Section `z` of the indicator over raw (z, y, x; 0..1), and sites that were found."""
    indicator = Volume.open(str(folder / "synapses.zarr/indicator"))
    predicted = indicator.read_scaled(indicator.box)
    predicted = predicted.reshape(predicted.shape[-3:])[z]
    shown = grey_picture(raw).astype(np.float32)
    shown[..., 0] += predicted * (255 - shown[..., 0])
    shown[..., 1:] *= (1 - 0.6 * predicted)[..., None]
    return {"predicted postsynaptic sites": shown.astype(np.uint8),
            "partners (red to blue)": _drawn_partners(grey_picture(raw), z, partners.found, indicator)}


def _drawn_partners(picture: np.ndarray, z: int, found: Synapses, volume: Volume) -> np.ndarray:
    """Draw lines from postsynaptic (red) to presynaptic sites (blue) of one section."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    frame = volume.frame
    post, pre = ((p - frame.offset) / frame.voxel_size for p in (found.post, found.pre))
    for (_, y, x), (_, y_pre, x_pre) in zip(
        *(p[np.floor(post[:, 0]) == z] for p in (post, pre)), strict=True
    ):
        draw.line([x, y, x_pre, y_pre], fill=(255, 220, 0))
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], outline=(255, 40, 40))
        draw.ellipse([x_pre - 3, y_pre - 3, x_pre + 3, y_pre + 3], outline=(60, 120, 255))
    return np.asarray(image)


def _scores(partners: Partners) -> Iterator[tuple[int, int, PartnerScore, PartnerScore]]:
    found, truth, found_neurons, truth_neurons = partners
    for least in SCORES:
        kept = found.score >= least
        rows = found.select(kept)
        yield least, len(rows), cremi_score(truth=truth, prediction=rows), cremi_score(
            truth=truth, prediction=rows,
            truth_ids=truth_neurons, prediction_ids=found_neurons[kept],
        )
