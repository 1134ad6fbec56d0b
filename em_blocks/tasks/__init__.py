"""Blockwise tasks, one class per file; `task_class` finds them by their ``kind``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from em_blocks.errors import ConfigError
from em_blocks.plugins import Registry

if TYPE_CHECKING:
    from em_blocks.tasks.base import RunConfig

TASKS = Registry("em_blocks.tasks", {
    "ingest": "em_blocks.tasks.volumes.ingest:Ingest",
    "equalize": "em_blocks.tasks.preparation.equalize:Equalize",
    "tissue_mask": "em_blocks.tasks.preparation.tissue_mask:TissueMask",
    "metric_mask": "em_blocks.tasks.preparation.metric_mask:MetricMask",
    "convert": "em_blocks.tasks.preparation.convert:Convert",
    "clean": "em_blocks.tasks.components.clean:Clean",
    "downsample": "em_blocks.tasks.volumes.downsample:Downsample",
    "predict": "em_blocks.tasks.prediction.predict:Predict",
    "predict_checkpoints": "em_blocks.tasks.prediction.predict_checkpoints:PredictCheckpoints",
    "threshold": "em_blocks.tasks.objects.threshold:Threshold",
    "objects": "em_blocks.tasks.objects.objects:Objects",
    "features": "em_blocks.tasks.features.features:Features",
    "segment_instances": "em_blocks.tasks.instances.segment_instances:SegmentInstances",
    "cluster_embeddings": "em_blocks.tasks.instances.cluster_embeddings:ClusterEmbeddings",
    "segment": "em_blocks.tasks.segmentation.segment:Segment",
    "relabel": "em_blocks.tasks.segmentation.relabel:Relabel",
    "link_slabs": "em_blocks.tasks.linking.link_slabs:LinkSlabs",
    "map_synapses": "em_blocks.tasks.synapses.map_synapses:MapSynapses",
    "extract_synapses": "em_blocks.tasks.synapses.extract_synapses:ExtractSynapses",
    "cluster_clefts": "em_blocks.tasks.synapses.cluster_clefts:ClusterClefts",
    "count_overlaps": "em_blocks.tasks.evaluation.count_overlaps:CountOverlaps",
    "count_mask": "em_blocks.tasks.evaluation.count_mask:CountMask",
    "count_instances": "em_blocks.tasks.evaluation.count_instances:CountInstances",
    "credit_synapses": "em_blocks.tasks.evaluation.credit_synapses:CreditSynapses",
}, base="em_blocks.tasks.base:RunConfig")
"""Tasks by the ``kind`` of their configs; each is a verb of the command line."""


def task_class(kind: object) -> type[RunConfig]:
    """Return the task class of a config's ``kind``; import it only when asked for.

    Raises
    ------
    ConfigError
        If there is no such kind, or the package that registers it is broken.
    """
    if kind not in TASKS.names():
        raise ConfigError(
            f"The key 'kind' is {kind!r}, but it must name the task of this config: one of "
            f"{', '.join(sorted(TASKS.names()))}."
        )
    return TASKS.get(str(kind))
