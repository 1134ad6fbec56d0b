"""A tiny setup that trains in seconds, for tests that need one."""

import json

NETWORK = """
from em_blocks.nets.unet import Head, UNet

def build(config):
    heads = {name: Head(head.channels, head.activation) for name, head in config.heads.items()}
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
            "validate_every": 4,
            "checkpoint_every": 2,
            "score": "affinities/cut_ap",
        },
    }


def write_setup(folder, values=None):
    """Write a setup folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values or tiny_config()))
    (folder / "network.py").write_text(NETWORK)
    return folder
