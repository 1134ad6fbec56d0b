"""Maps to instances, judged apart from networks, on generated mitochondria that touch and have necks.

Their maps are blurred, too wide and noisy, with contacts that are overlooked in places, as
`em-blocks generate --mitochondria-per-um3` makes them. Thresholds are searched on one volume, by
`em-blocks search-instances`, and used on another one of a different seed. The baseline is a threshold
on the foreground and its components (6 neighbours), threshold and least size searched likewise.

The last way cuts seeds into cores and merges fragments by a model that the search fits
(`fit_merge`). By default objects are as dense as in tissue; `--per-um3 4 --shape 96 720 720` has more
that touch than not.

Touching pairs are true objects that share a face of voxels. They are apart if each has a predicted
object that covers at least half of it, and the two differ.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import cc3d
import click
import numpy as np
from rich.console import Console

import em_blocks as em
from em_blocks.evaluation.instance_search.config import SearchInstances
from em_blocks.evaluation.instance_search.decoder import without_small
from em_blocks.evaluation.instance_search.search import Found, search
from em_blocks.geometry import Triple
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import match_objects, overlaps

VOXEL_SIZE = (30.0, 8.0, 8.0)
IOUS = (0.5, 0.75)
MAPS = {"foreground": "foreground", "contour": "contour", "distance": "signed_distance"}
THRESHOLDS, MIN_SIZES = (0.6, 0.7), (500, 1000)
SEEDS = {"foreground": [0.8], "contour": [0.1, 0.15, 0.2, 0.25, 0.3], "min_size": [10]}
CORES = {"foreground": [0.8], "contour": [0.1, 0.2], "distance": [0.55, 0.6, 0.65]}


class Way(NamedTuple):
    """A way to decode: its maps, the values of seeds that are searched, and whether to merge."""

    maps: tuple[str, ...]
    seeds: dict
    merge: bool = False


WAYS = {
    "foreground, contour": Way(("foreground", "contour"), SEEDS),
    "foreground, contour, distance": Way(tuple(MAPS), SEEDS | {"distance": [0.3, 0.4, 0.5]}),
    "cores and merging": Way(
        tuple(MAPS),
        {"foreground": [0.7], "contour": [0.5], "distance": [0.2], "min_size": [20], "cores": CORES},
        merge=True,
    ),
}


def generate(folder: Path, name: str, shape: Triple, seed: int, per_um3: float) -> Path:
    path = folder / f"{name}.zarr"
    if not path.exists():
        em.generate_mitochondria(
            path, seed=seed, shape=shape, voxel_size=VOXEL_SIZE, per_um3=per_um3
        )
    return path


def read(path: Path | str) -> np.ndarray:
    return np.asarray(em.open(path))


def config(volume: Path, way: Way, folder: Path) -> dict:
    run = f"{volume.stem}_{len(way.maps)}{'_merged' * way.merge}"
    return {
        "kind": "segment_instances", "run": run, "output": str(folder / f"{run}_out.zarr"),
        "num_workers": 2, **{name: str(volume / MAPS[name]) for name in way.maps},
    }


def searched(volume: Path, way: Way, folder: Path) -> Found:
    """The values of the keys that are best on a volume."""
    segment = config(volume, way, folder)
    return search(SearchInstances.from_dict({
        "kind": "search_instances", "segment": segment, "fit_merge": way.merge,
        "truth": str(volume / "mitochondria"), "output": str(folder / f"search_{segment['run']}"),
        "search": {"threshold": THRESHOLDS, "seeds": way.seeds, "min_size": MIN_SIZES},
    }))


def segmented(volume: Path, way: Way, folder: Path, best: em.SegmentInstances) -> np.ndarray:
    """Instances of a volume by blocks, with the thresholds that were found on another one."""
    chosen = best.model_dump(mode="json", include={"threshold", "min_size", "seeds", "merge"})
    task = em.SegmentInstances.from_dict(config(volume, way, folder) | chosen)
    report = em.run(task, progress=False, overwrite=True)
    assert report.ok, report
    return read(f"{task.output}/objects")


def components(foreground: np.ndarray, threshold: float, min_size: int) -> np.ndarray:
    found = cc3d.connected_components(foreground >= round(threshold * 255), connectivity=6)
    return without_small(found.astype(np.uint64), min_size)


def baseline(volume: Path) -> tuple[float, int]:
    """Threshold and least size with the highest mean of F1 on a volume."""
    foreground, truth = read(volume / "foreground"), read(volume / "mitochondria")
    thresholds = (0.5, *THRESHOLDS, 0.9, 0.95)
    return max(
        itertools.product(thresholds, MIN_SIZES),
        key=lambda choice: sum(f1(components(foreground, *choice), truth).values()),
    )


def f1(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    table = overlaps(count_overlaps(segmentation=found, truth=truth))
    return {f"f1_at_{iou:g}": match_objects(table, iou=iou).fscore or 0.0 for iou in IOUS}


def apart(found: np.ndarray, truth: np.ndarray, pairs: list[tuple[int, int]]) -> float:
    """Share of the pairs whose objects are apart."""
    table = count_overlaps(segmentation=found, truth=truth)
    sizes = dict(zip(*(column.tolist() for column in np.unique(truth, return_counts=True)), strict=True))
    main = {
        true: predicted
        for true, predicted, voxels in zip(
            table.truth.tolist(), table.segmentation.tolist(), table.voxels.tolist(), strict=True)
        if predicted and 2 * voxels >= sizes[true]
    }
    ways = [(main.get(a), main.get(b)) for a, b in pairs]
    return sum(None not in way and way[0] != way[1] for way in ways) / len(pairs)


def touching(truth: np.ndarray) -> list[tuple[int, int]]:
    return sorted(cc3d.contacts(truth.astype(np.uint32), connectivity=6))


def measured(
    folder: Path, shape: Triple, search_shape: Triple, seed: int, per_um3: float
) -> dict:
    known = generate(folder, "known", search_shape, seed, per_um3)
    unseen = generate(folder, "unseen", shape, seed + 1, per_um3)
    truth = read(unseen / "mitochondria")
    pairs = touching(truth)

    def scores(found: np.ndarray) -> dict:
        return f1(found, truth) | {"touching_apart": apart(found, truth, pairs),
                                   "objects": len(np.unique(found)) - 1}

    threshold, min_size = baseline(known)
    result = {
        "true_objects": len(np.unique(truth)) - 1, "touching_pairs": len(pairs),
        "searched_objects": len(np.unique(read(known / "mitochondria"))) - 1,
        "baseline": {"threshold": threshold, "min_size": min_size}
        | scores(components(read(unseen / "foreground"), threshold, min_size)),
    }
    for name, way in WAYS.items():
        best = searched(known, way, folder)
        found = segmented(unseen, way, folder, best.config)
        result[name] = best.best.values | {"tried": len(best.tried)} | scores(found)
    return result


@click.command()
@click.option("--shape", type=int, nargs=3, default=(96, 960, 960), show_default=True)
@click.option("--search-shape", type=int, nargs=3, default=(96, 640, 640), show_default=True)
@click.option("--per-um3", default=2.0, show_default=True, help="Objects in a cubic micrometre.")
@click.option("--seed", default=2026, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep volumes, to go on with them.")
def main(
    shape: Triple, search_shape: Triple, per_um3: float, seed: int, folder: Path | None
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        Console(stderr=True).print(f"Working in {work}")
        print(json.dumps(measured(work, shape, search_shape, seed, per_um3), indent=2))


if __name__ == "__main__":
    main()
