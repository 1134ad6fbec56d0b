"""metadata.json of an exported model: the keys that CellMap's models have, and what em_blocks adds.

Keys of the first part as in the folders that janelia-cellmap/cellmap-models exports, so that tools
which read these find what they look for.
"""

from __future__ import annotations

from typing import Any

from em_blocks import __version__
from em_blocks.export.models.card import description
from em_blocks.export.models.model import Model, channel_names
from em_blocks.training.data.domain import Domain


def metadata(model: Model) -> dict[str, Any]:
    """Collect the metadata of a model, JSON values only; shapes in voxels, sizes in nm, (z, y, x)."""
    return _as_cellmap(model) | {"em_blocks": _own(model)}


def _as_cellmap(model: Model) -> dict[str, Any]:
    config = model.config
    tile, context = config.tile_shape, model.context
    given = [t + 2 * c for t, c in zip(tile, context, strict=True)]
    names = [n for name, head in config.heads.items() for n in channel_names(name, head)]
    return {
        "model_name": config.name,
        "model_type": type(model.network).__name__,
        "framework": f"em_blocks/{'torch' if config.network.trainable else config.network.kind}",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": len(names),
        "iteration": model.iteration,
        "input_voxel_size": list(config.voxel_size),
        "output_voxel_size": list(config.voxel_size),
        "channels_names": names,
        "input_shape": list(model.raw.shape),
        "output_shape": list(model.tile),
        "inference_input_shape": given,
        "inference_output_shape": list(tile),
        "author": ", ".join(author.name for author in model.about.authors),
        "description": description(model),
        "version": __version__,
    }


def _own(model: Model) -> dict[str, Any]:
    config, domain = model.config, Domain.of(model.config)
    return {
        "context": list(model.context),
        "tile_factor": _listed(getattr(model.network, "tile_factor", None)),
        "normalization": config.normalization.model_dump(),
        "intensities": list(domain.intensities),
        "raw_dtype": str(model.raw.dtype),
        "heads": {
            name: {
                "kind": head.kind, "activation": head.activation,
                "unit_nm": getattr(head, "unit_nm", None),
                "channels": channel_names(name, head),
            }
            for name, head in config.heads.items()
        },
        "license": model.about.license,
        "data": [data.model_dump(exclude_none=True) for data in model.about.data],
        "cite": [cited.model_dump(exclude_none=True) for cited in model.about.cite],
        "scores": model.scores(),
        "lineage": model.lineage(),
    }


def _listed(values: Any) -> list[int] | None:
    return None if values is None else list(values)
