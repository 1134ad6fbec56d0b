"""Shared helper: volumes to prepare, and preparations without database and workers."""

from __future__ import annotations

import numpy as np

from em_blocks.geometry import Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.places import check_places
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))


def volume(folder, values, name="raw", frame=FRAME, chunk_shape=(4, 8, 8), **attributes):
    """Store an array (z, y, x) or (c, z, y, x) as a volume of a container ``in.zarr``."""
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=chunk_shape, channels=values.shape[0] if values.ndim == 4 else None,
        attributes=attributes,
    )
    made.write(made.box, values)
    return made


def checked(config):
    """Check all steps of a config as a command does, before anything is written."""
    for step in config.steps():
        step.check()
        step.check_alignment()
        check_places(step)
    return config


def done(config):
    """Do all steps of a config; the volume that comes out, and what was counted."""
    counts = {}
    for step in checked(config).steps():
        grid = step.grid()
        for spec in step.output_specs():
            spec.create(grid, "fingerprint")
        with step.open(RunContext()) as process:
            for block in reversed(list(grid.blocks())):
                report = BlockReport()
                process(block, report)
                for name, n in report.counts.items():
                    counts[name] = counts.get(name, 0) + n
    return Volume.open(config.output), counts


def voxels(made):
    return made.read(made.box)


def textured(shape, seed=0, dtype="uint8"):
    """An image whose brightness and contrast change from place to place."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    image = 90 + 60 * np.sin(3 * x + y) + (8 + 40 * y * z) * rng.standard_normal(shape)
    return image.clip(0, 255).astype(dtype)
