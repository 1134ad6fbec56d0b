"""Shared helper: predictions of synapses, extractions of them, and one with faults."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from scipy import ndimage

from blockwise import AddOne
from em_blocks.db.rows import RowStore
from em_blocks.db.schemas.synapses import SYNAPSES
from em_blocks.geometry import Frame
from em_blocks.tasks.synapses.extract_synapses import ExtractSynapses
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.0, 4.6), (400.0, -46.0, 9.2))
SHAPE = (12, 40, 50)
VECTOR_SCALE = 0.25


def blobs(seed=0, shape=SHAPE, sigma=(0.7, 2, 2)):
    """Smooth noise: above 0.5 it has components from one voxel to half the volume."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return np.clip(127 + 110 * noise / noise.std(), 0, 255).astype(np.uint8)


def predictions(folder, indicator, *, scale=255.0, vector_scale=VECTOR_SCALE, frame=FRAME, seed=1,
                channels=None, vector_dtype="int8"):
    """Volumes of an indicator and of random vectors."""
    vectors = np.random.default_rng(seed).integers(-20, 21, (3, *indicator.shape)).astype(vector_dtype)
    paths = [str(folder / f"p.zarr/{name}") for name in ("indicator", "vectors")]
    for path, values, factor, of in (
        (paths[0], indicator if channels is None else indicator[None], scale, channels),
        (paths[1], vectors, vector_scale, 3),
    ):
        attributes = {} if factor is None else {"scale": factor}
        made = Volume.create(path, shape=indicator.shape, dtype=values.dtype, frame=frame,
                             chunk_shape=(5, 16, 16), channels=of, attributes=attributes)
        made.write(made.box, values)
    return paths


def extraction(paths, block_shape=SHAPE, *, kind=ExtractSynapses, **options):
    values = {"kind": "extract_synapses", "run": "syn", "indicator": paths[0], "vectors": paths[1],
              "block_shape": block_shape, "detection": components(),
              "context_nm": [40, 4, 4], **options}
    return kind.from_dict(values)


def components(threshold=0.7, **options):
    return {"method": "components", "threshold": threshold, **options}


class Faulty(ExtractSynapses):
    """Suffers at chosen blocks, once.

    ``raise``: stores other rows, and fails. ``kill_half``: dies when half of the rows are stored,
    ``kill_written``: between the rows and the commit.
    """

    operational: ClassVar[frozenset[str]] = ExtractSynapses.operational | {"faults"}
    faults: dict[str, str] = {}
    _fault = AddOne._fault

    @contextmanager
    def open(self, context):
        synapses = context.rows(SYNAPSES)
        with super().open(context) as process:

            def faulty(block, report):
                fault = self._fault(block.key)
                if fault == "raise":
                    process(block, report)
                    stored = synapses.read(block=block.key)
                    synapses.replace_block(block.key, stored.replace(id=stored.id + 1))
                    raise ValueError("after it stored other rows")
                if fault == "kill_half":
                    RowStore._insert = _insert_half
                process(block, report)
                if fault == "kill_written":
                    os.kill(os.getpid(), signal.SIGKILL)

            yield faulty


def _insert_half(synapses, documents):
    synapses.collection.insert_many(documents[: len(documents) // 2 + 1])
    os.kill(os.getpid(), signal.SIGKILL)


class Slow(ExtractSynapses):
    """Takes its time, before and after its rows are stored."""

    operational: ClassVar[frozenset[str]] = ExtractSynapses.operational | {"sleep_s"}
    sleep_s: float = 0.3

    @contextmanager
    def open(self, context):
        synapses = context.rows(SYNAPSES)
        with super().open(context) as process:

            def slowly(block, report):
                time.sleep(self.sleep_s)
                process(block, report)
                assert len(synapses.read(block=block.key)) == report.counts["synapses"]

            yield slowly
