"""A setup for given data: every number worked out from them, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.models.network_plan import NetworkPlan, plan_network
from em_blocks.training.data.domain import full_range
from em_blocks.training.review.table import Crop

HEAD = "organelles"
ITERATIONS, VALIDATE_EVERY = 4000, 200
LEAST_FOREGROUND, USUAL_FOREGROUND = 0.001, 0.05
"""Share of a class that a sample must hold: incasem's, less for classes that are rarer."""
MOST_BATCH = {"cpu": 1, "cuda": 4}
"""A CPU learns more from more iterations; a GPU would not be busy with one sample."""
WIDE = 1 / 3
"""Share of the range of uint8 from which on all of it is used."""


class Machine(NamedTuple):
    """What trains.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    memory_gb : float
        Of the GPU, or of the computer.
    precision : {"fp32", "bf16", "fp16"}
        The fastest in hardware.
    """

    device: str
    memory_gb: float
    precision: str

    def __str__(self) -> str:
        return f"{'a GPU' if self.device == 'cuda' else 'a CPU'} with {self.memory_gb:.3g} GB"


class Choice(NamedTuple):
    """One choice: what it is, and why."""

    key: str
    value: Any
    reason: str


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
    size = crops[0].voxel_size
    classes = sorted({name for crop in crops for name in crop.classes})
    if not classes:
        raise ConfigError(
            "The data name no class: `labels` of a data set says of which class each label volume is "
            '({"volumes/mito": "mitochondria"}).'
        )
    smallest = [min(crop.shape[axis] for crop in crops) for axis in range(3)]
    plan = plan_network(size, smallest, memory_gb=machine.memory_gb, device=machine.device)
    fitting = machine.memory_gb * 1e9 / 2 // plan.sample_bytes
    batch = int(np.clip(fitting, 1, MOST_BATCH[machine.device]))
    normalization, range_reason = _normalization(crops)
    foreground = _foreground(crops, classes)
    config = {
        "name": name,
        "voxel_size": list(size),
        "network": {
            "features": plan.features, "kernels": plan.kernels, "pooling": plan.pooling,
            "rectifier": "leaky_relu",
        },
        "heads": {HEAD: {"kind": "classes", "classes": classes}},
        "normalization": normalization,
        "tile_shape": plan.tile_shape,
        "training": {
            "augment": _augment(size),
            "output_shape": plan.output_shape,
            "batch_size": batch,
            "iterations": ITERATIONS,
            "seed": 1,
            "learning_rate": 0.001,
            "precision": machine.precision,
            "sampling": {"labelled": 0.25, "foreground": foreground},
            "validate_every": VALIDATE_EVERY,
            "checkpoint_every": VALIDATE_EVERY,
            "score": f"{HEAD}/f1",
        },
    }
    contrast = _contrast_choices(equalized)
    config |= {choice.key: choice.value for choice in contrast}
    choices = [
        *contrast,
        Choice(
            "voxel_size", list(size),
            "that of the data: a network works at the resolution that it was trained at",
        ),
        Choice(
            f"heads.{HEAD}.classes", classes,
            "all classes that the data name; a voxel may be of several, and each is learnt only where "
            "it is known",
        ),
        *_network_choices(plan, size, machine),
        Choice("normalization", normalization, range_reason),
        *_sample_choices(plan, batch, machine, foreground, thick=_thick(size)),
        Choice("training.validation", "see config.json", MEASURED[has_validation]),
    ]
    return Proposal(config, choices)


MEASURED = {
    True: "the data given as --validation",
    False: "WARNING: the data that are trained on, as no others were given. Such scores say nothing "
    "about unseen data: keep a crop apart and name it here",
}


def _contrast_choices(equalized: dict | None) -> list[Choice]:
    if equalized is None:
        return []
    return [Choice(
        "equalized", equalized,
        "how raw was equalised; equalise what you predict in the same way, other raw is warned of",
    )]


def _network_choices(plan: NetworkPlan, size: Sequence[float], machine: Machine) -> list[Choice]:
    context = [round(n * s) for n, s in zip(plan.context, size, strict=True)]
    return [
        Choice(
            "network.features", list(plan.features),
            f"channels of the levels, for {machine}; twice as many make a step about three times as "
            "long",
        ),
        Choice(
            "network.pooling", [list(pool) for pool in plan.pooling],
            "in the plane alone until voxels are as long as wide, then along all axes",
        ),
        Choice(
            "network.kernels", [[list(kernel) for kernel in level] for level in plan.kernels],
            "across sections only on levels whose voxels are nearly as long as wide. Together they see "
            f"{list(plan.context)} voxels, {context} nm, beyond the output on every side: context is "
            "never set, it follows, and is mirrored where raw ends",
        ),
        Choice(
            "tile_shape", list(plan.tile_shape),
            "output of one pass of a prediction, which needs less memory than training; any multiple of "
            "the product of the poolings gives the same values",
        ),
    ]


def _sample_choices(
    plan: NetworkPlan, batch: int, machine: Machine, foreground: list[dict], *, thick: bool
) -> list[Choice]:
    defects = ", and missing or faint sections, as series of sections have them" if thick else ""
    return [
        Choice(
            "training.output_shape", list(plan.output_shape),
            "voxels that one sample teaches: a multiple of the product of the poolings, no larger than "
            "the crops need; thin where sections are thick, for those far apart are hardly related",
        ),
        Choice(
            "training.batch_size", batch,
            f"samples at a time, for {machine}: one needs about {plan.sample_bytes / 1e9:.2g} GB, and "
            "at most half of the memory is used; a CPU learns more from more iterations",
        ),
        Choice(
            "training.precision", machine.precision,
            "the fastest that this machine computes in hardware; with a GPU of your own, bf16",
        ),
        Choice(
            "training.augment", "see config.json",
            "elastic deformation of two voxels, none across thick sections; changes of contrast, noise "
            f"and blur{defects}",
        ),
        Choice(
            "training.sampling", foreground,
            "half of the samples must hold this much of a class, or rare ones would hardly be seen; the "
            "rest is taken anywhere in the crops",
        ),
        Choice(
            "training.iterations", ITERATIONS,
            f"with a validation every {VALIDATE_EVERY}; while the score rises, go on with --resume "
            "--iterations N",
        ),
    ]


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


def _augment(size: Sequence[float]) -> dict[str, Any]:
    thick = _thick(size)
    spacing = [32 * size[2]] * 3
    if thick:
        spacing[0] = max(spacing[0], 4 * size[0])
    jitter = [0.0 if thick else 2 * size[0], 2 * size[1], 2 * size[2]]
    defects = {"missing_sections": 0.02, "faint_sections": 0.02} if thick else {}
    return {
        "control_point_nm": spacing, "jitter_nm": jitter, "elastic": 0.6, "scale": 0.1, "gamma": 0.2,
        "contrast": 0.3, "brightness": 0.15, "noise": 0.04, "blur": 0.8, **defects,
    }


def _thick(size: Sequence[float]) -> bool:
    return size[0] > 2 * size[2]
