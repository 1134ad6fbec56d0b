"""Blockwise tasks, one class per file; `task_class` finds them by their ``kind``."""

from __future__ import annotations

import importlib

from em_blocks.errors import ConfigError
from em_blocks.tasks.base import RunConfig

KINDS = {
    "ingest": "em_blocks.tasks.volumes.ingest:Ingest",
    "clean": "em_blocks.tasks.components.clean:Clean",
    "downsample": "em_blocks.tasks.volumes.downsample:Downsample",
    "predict": "em_blocks.tasks.prediction.predict:Predict",
    "segment": "em_blocks.tasks.segmentation.segment:Segment",
    "relabel": "em_blocks.tasks.segmentation.relabel:Relabel",
    "map_synapses": "em_blocks.tasks.synapses.map_synapses:MapSynapses",
    "extract_synapses": "em_blocks.tasks.synapses.extract_synapses:ExtractSynapses",
    "cluster_clefts": "em_blocks.tasks.synapses.cluster_clefts:ClusterClefts",
    "count_overlaps": "em_blocks.tasks.evaluation.count_overlaps:CountOverlaps",
    "credit_synapses": "em_blocks.tasks.evaluation.credit_synapses:CreditSynapses",
}


def task_class(kind: object) -> type[RunConfig]:
    """The task class of a config's ``kind``; imported only when asked for."""
    if kind not in KINDS:
        raise ConfigError(
            f"The key 'kind' is {kind!r}, but it must name the task of this config: one of "
            f"{', '.join(sorted(KINDS))}."
        )
    module, name = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), name)
