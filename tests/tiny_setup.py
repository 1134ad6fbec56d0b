"""A tiny setup that trains in seconds, for tests that need one."""

import json

import numpy as np

NETWORK = """
from em_blocks.nets.unet import Head, UNet

def build(config):
    heads = {
        name: Head(head.channels, head.activation, getattr(head, "unit_nm", 1.0))
        for name, head in config.heads.items()
    }
    return UNet(**config.network.model_dump(), heads=heads)
"""
PHANTOM = {"shape": [40, 64, 64], "seed": 3, "neurite_nm": 120}


def tiny_config() -> dict:
    """Values of a config.json; a fresh copy each time."""
    return {
        "name": "tiny",
        "voxel_size": [10, 10, 10],
        "network": {
            "features": [2, 3],
            "kernels": [[[1, 3, 3]], [[1, 3, 3]]],
            "pooling": [[1, 2, 2]],
        },
        "heads": {
            "affinities": {
                "channels": 4,
                "activation": "sigmoid",
                "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -3]],
            }
        },
        "normalization": {"scale": 0.01, "shift": -1.0},
        "tile_shape": [4, 16, 16],
        "training": {
            "sources": [{"phantom": PHANTOM}],
            "validation": [{"phantom": PHANTOM, "end": [6, 32, 32]}],
            "augment": {"control_point_nm": [100, 100, 100], "jitter_nm": [3, 5, 5]},
            "output_shape": [4, 16, 16],
            "iterations": 8,
            "seed": 1,
            "warmup": 2,
            "precision": "fp32",
            "loaders": 0,
            "validate_every": 4,
            "checkpoint_every": 2,
            "score": "affinities/cut_ap",
        },
    }


def synapse_config(folder) -> dict:
    """Values of a config.json that learns synapses from arrays and a file in `folder`."""
    values = tiny_config()
    values["voxel_size"] = [40, 4, 4]
    values["heads"] = {
        "indicator": {"kind": "indicator", "radius_nm": 12},
        "direction_vectors": {"kind": "direction_vectors", "radius_nm": 20, "unit_nm": 50},
    }
    source = {name: str(folder / "data.zarr" / name) for name in ("raw", "labels")}
    source |= {"synapses": str(folder / "synapses.csv")}
    values["training"] |= {
        "sources": [source], "validation": [source | {"end": [4, 32, 32]}],
        "augment": {
            "control_point_nm": [400, 100, 100], "jitter_nm": [0, 5, 5], "elastic": 0.5,
        },
        "reject_probability": [[0, 1.0], [8, 0.5]], "score": "synapses/fscore",
    }
    return values


def write_synapse_data(folder, offset=(400.0, 46.0, 9.2)):
    """Raw, labels and synapses for `synapse_config`; returns the synapses, nm in the world."""
    import zarr

    from em_blocks.kernels.synapses.table import Synapses
    from em_blocks.volumes.synapse_files import write_synapses

    rng = np.random.default_rng(5)
    shape, size = (12, 64, 64), np.array([40.0, 4.0, 4.0])
    labels = 1 + np.indices(shape)[2] // 16 + 4 * (np.indices(shape)[1] // 16)
    group = zarr.open_group(str(folder / "data.zarr"), "w")
    for name, values in (("raw", rng.integers(0, 255, shape)), ("labels", labels)):
        dtype = "u1" if name == "raw" else "u8"
        array = group.create_dataset(name, data=values.astype(dtype))
        array.attrs.update(voxel_size=size.tolist(), offset=list(offset))
    post = (rng.random((20, 3)) * shape) * size + offset
    synapses = Synapses(id=np.arange(1, 21), post=post, pre=post + rng.normal(0, 30, (20, 3)))
    write_synapses(folder / "synapses.csv", synapses)
    return synapses


def write_setup(folder, values=None):
    """Write a setup folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values or tiny_config()))
    (folder / "network.py").write_text(NETWORK)
    return folder
