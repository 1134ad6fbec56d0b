"""A small validation set with its search."""

from em_blocks.evaluation.instance_search.config import SearchInstances
from em_blocks.export.mitochondria import write_mitochondria
from em_blocks.geometry import Frame

FRAME = Frame((30.0, 14.0, 14.0), (300.0, 28.0, -14.0))
SHAPE = (20, 96, 104)
GRID = {"threshold": [0.5, 0.6], "seeds": {"foreground": [0.8], "contour": [0.02, 0.4]},
        "min_size": [60, 200]}


def write_maps(folder, frame=FRAME, shape=SHAPE, seed=8):
    """Mitochondria and their maps; returns the sources of a config, truth too."""
    write_mitochondria(folder / "v.zarr", shape=shape, frame=frame, seed=seed, per_um3=7.0)
    names = {"foreground": "foreground", "contour": "contour", "distance": "signed_distance"}
    return ({key: str(folder / f"v.zarr/{name}") for key, name in names.items()},
            str(folder / "v.zarr/mitochondria"))


def segment_config(maps, folder, **options):
    return {
        "kind": "segment_instances", "run": "mito", **maps, "output": str(folder / "o.zarr"),
        "chunk_shape": [12, 32, 32], "block_shape": [12, 64, 64], "min_size": 60,
        "seeds": {"min_size": 20}, **options,
    }


def search_config(maps, truth, folder, **options):
    return {
        "kind": "search_instances", "segment": segment_config(maps, folder), "truth": truth,
        "output": str(folder / "found"), "search": GRID, **options,
    }


def search_task(*args, **options):
    return SearchInstances.from_dict(search_config(*args, **options))
