"""A setup for given data: every number worked out from them, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.models.network_plan import NetworkPlan, plan_network
from em_blocks.training.data.domain import full_range
from em_blocks.training.review.reasons import (
    MEASURED,
    Choice,
    contrast_choices,
    head_choices,
    network_choices,
    training_choices,
)
from em_blocks.training.review.recipe import Machine, Recipe, augment_of, recipe_for
from em_blocks.training.review.table import Crop

HEAD = "organelles"
LEAST_FOREGROUND, USUAL_FOREGROUND = 0.001, 0.05
"""Share of a class that a sample must hold: incasem's, less for classes that are rarer."""
WIDE = 1 / 3
"""Share of the range of uint8 from which on all of it is used."""


class Proposal(NamedTuple):
    """Values of a config.json but for its sources, and the reasons."""

    config: dict
    choices: list[Choice]

    @property
    def classes(self) -> list[str]:
        """Names of the classes that are learnt."""
        return list(self.config["heads"][HEAD]["classes"])

    def readme(self) -> str:
        """Return the text of a README.md that explains every choice."""
        rows = [f"- **`{choice.key}`** `{choice.value}`: {choice.reason}." for choice in self.choices]
        name = self.config["name"]
        return (
            f"# {name}\n\nA network that finds {', '.join(self.classes)}, for the data that "
            "`training.sources` of config.json names. Made by `em-blocks new organelle`; change what "
            "you know better.\n\n"
            "    em-blocks check-data .              # a look at the data: shares, ranges, pictures\n"
            "    em-blocks train .                   # checkpoints/best.safetensors\n"
            "    em-blocks predict predict.json      # probabilities in all of the volume\n"
            "    em-blocks threshold threshold.json  # class ids: 1 is the first of `classes`\n\n"
            "## Why these values\n\n" + "\n".join(rows) + "\n"
        )


def propose(
    name: str, crops: Sequence[Crop], machine: Machine, *, has_validation: bool,
    equalized: dict | None = None,
) -> Proposal:
    """Work out a setup that learns all classes of the data.

    Parameters
    ----------
    name : str
        Of the setup.
    crops : sequence of Crop
        What was found in the sources.
    machine : Machine
    has_validation : bool
        Whether there are other data to measure on.
    equalized : dict, optional
        How raw of all crops was equalised.

    Raises
    ------
    ConfigError
        If the data name no class.
    """
    size, classes = crops[0].voxel_size, _classes(crops)
    smallest = [min(crop.shape[axis] for crop in crops) for axis in range(3)]
    plan = plan_network(size, smallest, memory_gb=machine.memory_gb, device=machine.device)
    recipe = recipe_for(size, machine)
    normalization, range_reason = _normalization(crops)
    contrast = contrast_choices(equalized)
    training = _training(plan, recipe, machine, size, _foreground(crops, classes))
    config = {
        "name": name,
        "voxel_size": list(size),
        "network": _network(plan),
        "heads": {HEAD: _head(classes, recipe)},
        "normalization": normalization,
        "tile_shape": plan.tile_shape,
        "training": training,
        **{choice.key: choice.value for choice in contrast},
    }
    return Proposal(config, [
        *contrast,
        Choice(
            "voxel_size", list(size),
            "that of the data: a network works at the resolution that it was trained at",
        ),
        *head_choices(HEAD, classes, recipe),
        *network_choices(plan, size, machine),
        Choice("normalization", normalization, range_reason),
        *training_choices(plan, recipe, training, machine, size),
        Choice("training.validation", "see config.json", MEASURED[has_validation]),
    ])


def _classes(crops: Sequence[Crop]) -> list[str]:
    """Return all classes of the crops; raises `ConfigError` if there are none."""
    classes = sorted({name for crop in crops for name in crop.classes})
    if not classes:
        raise ConfigError(
            "The data name no class: `labels` of a data set says of which class each label volume is "
            '({"volumes/mito": "mitochondria"}).'
        )
    return classes


def _network(plan: NetworkPlan) -> dict:
    return {
        "features": plan.features, "kernels": plan.kernels, "pooling": plan.pooling,
        "rectifier": "leaky_relu",
    }


def _head(classes: list[str], recipe: Recipe) -> dict:
    return {"kind": "classes", "classes": classes} | ({"loss": recipe.loss} if recipe.loss else {})


def _training(
    plan: NetworkPlan, recipe: Recipe, machine: Machine, size: Sequence[float],
    foreground: list[dict],
) -> dict:
    """Return `training` but for its sources."""
    fitting = machine.memory_gb * 1e9 / 2 // plan.sample_bytes
    return {
        "augment": augment_of(recipe, size),
        "output_shape": plan.output_shape,
        "batch_size": int(np.clip(fitting, 1, recipe.most_batch)),
        "iterations": recipe.iterations,
        "seed": 1,
        **recipe.optimizer,
        "precision": machine.precision,
        "sampling": {"labelled": 0.25, "foreground": foreground},
        "validate_every": recipe.validate_every,
        "checkpoint_every": recipe.validate_every,
        "score": f"{HEAD}/f1",
    }


def _normalization(crops: Sequence[Crop]) -> tuple[dict[str, float], str]:
    """Scale and shift to -1 .. 1: of all of uint8 if it is used, else of what occurs."""
    low = min(crop.percentiles[0] for crop in crops)
    high = max(crop.percentiles[100] for crop in crops)
    usual = full_range(np.dtype(crops[0].dtype))
    if usual == (0.0, 255.0) and high - low > WIDE * 255:
        low, high = usual
        reason = "raw becomes -1 to 1: all of uint8, so that other data of this dtype fit"
    else:
        reason = (
            f"raw becomes -1 to 1: the intensities {low:g} to {high:g} that occur in the crops. Data of "
            "another range are predicted with a `normalization` of their own"
        )
    scale = 2 / max(high - low, 1e-9)
    return {"scale": scale, "shift": -1 - low * scale}, reason


def _foreground(crops: Sequence[Crop], classes: Sequence[str]) -> list[dict]:
    found = []
    for name in classes:
        shares = [crop.classes[name] for crop in crops if name in crop.classes]
        known = sum(part.background + part.object for part in shares)
        share = sum(part.object for part in shares) / max(1, known)
        if share:
            fraction = float(np.clip(share / 2, LEAST_FOREGROUND, USUAL_FOREGROUND))
            found.append({
                "label": name, "fraction": round(fraction, 4),
                "probability": round(0.5 / len(classes), 3),
            })
    return found
