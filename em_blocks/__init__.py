"""Blockwise electron-microscopy connectomics: prediction, segmentation, synapses.

``em_blocks.open`` opens a volume, the tasks are classes (``em_blocks.Predict``), and
``em_blocks.run`` runs them; docs/python.md shows it. Importing this package loads neither
torch nor gunpowder nor pymongo: these names are imported when they are first used.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from em_blocks.errors import EmBlocksError
from em_blocks.geometry import Box, Frame, Roi

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from em_blocks.api import (
        Report,
        generate,
        generate_mitochondria,
        load,
        open,
        run,
        shipped_setup,
    )
    from em_blocks.config import VolumeInput
    from em_blocks.tasks.base import BlockwiseTask
    from em_blocks.tasks.components.clean import Clean
    from em_blocks.tasks.evaluation.count_instances import CountInstances
    from em_blocks.tasks.evaluation.count_mask import CountMask
    from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
    from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses
    from em_blocks.tasks.linking.link_slabs import LinkSlabs
    from em_blocks.tasks.objects.objects import Objects
    from em_blocks.tasks.objects.threshold import Threshold
    from em_blocks.tasks.prediction.predict import Predict
    from em_blocks.tasks.prediction.predict_checkpoints import PredictCheckpoints
    from em_blocks.tasks.preparation.convert import Convert
    from em_blocks.tasks.preparation.equalize import Equalize
    from em_blocks.tasks.preparation.metric_mask import MetricMask
    from em_blocks.tasks.preparation.tissue_mask import TissueMask
    from em_blocks.tasks.segmentation.relabel import Relabel
    from em_blocks.tasks.segmentation.segment import Segment
    from em_blocks.tasks.synapses.cluster_clefts import ClusterClefts
    from em_blocks.tasks.synapses.extract_synapses import ExtractSynapses
    from em_blocks.tasks.synapses.map_synapses import MapSynapses
    from em_blocks.tasks.volumes.downsample import Downsample
    from em_blocks.tasks.volumes.ingest import Ingest
    from em_blocks.volumes import Volume

__all__ = [
    "BlockwiseTask", "Box", "Clean", "ClusterClefts", "Convert", "CountInstances", "CountMask",
    "CountOverlaps", "CreditSynapses", "Downsample", "EmBlocksError", "Equalize", "ExtractSynapses",
    "Frame", "Ingest", "LinkSlabs", "MapSynapses", "MetricMask", "Objects", "Predict",
    "PredictCheckpoints", "Relabel", "Report", "Roi", "Segment", "Threshold", "TissueMask", "Volume",
    "VolumeInput", "__version__", "generate", "generate_mitochondria", "load", "open", "run",
    "shipped_setup",
]


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` when it is first used."""
    import importlib

    from em_blocks.tasks import TASKS

    modules = dict(value.split(":")[::-1] for value in TASKS.builtin.values())
    modules |= {
        "BlockwiseTask": "em_blocks.tasks.base", "Volume": "em_blocks.volumes",
        "VolumeInput": "em_blocks.config",
    } | dict.fromkeys(
        ("Report", "generate", "generate_mitochondria", "load", "open", "run", "shipped_setup"),
        "em_blocks.api",
    )
    if name not in modules:
        raise AttributeError(f"module 'em_blocks' has no attribute {name!r}")
    value = getattr(importlib.import_module(modules[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
