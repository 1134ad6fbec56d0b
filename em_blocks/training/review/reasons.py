"""The choices of a proposed setup, each with its reason in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from em_blocks.models.network_plan import NetworkPlan, is_flat, is_thick
from em_blocks.training.review.recipe import (
    Machine,
    Recipe,
    seconds_per_iteration,
    time_text,
)

MEASURED = {
    True: "the data given as --validation",
    False: "WARNING: the data that are trained on, as no others were given. Such scores say nothing "
    "about unseen data: keep a crop apart and name it here",
}


class Choice(NamedTuple):
    """One choice: what it is, and why."""

    key: str
    value: Any
    reason: str


def contrast_choices(equalized: dict | None) -> list[Choice]:
    """Explain how raw was equalised; nothing if it was not."""
    if equalized is None:
        return []
    return [Choice(
        "equalized", equalized,
        "how raw was equalised; equalise what you predict in the same way, other raw is warned of",
    )]


def head_choices(head: str, classes: Sequence[str], recipe: Recipe) -> list[Choice]:
    """Explain what is learnt, and by which loss."""
    chosen = [Choice(
        f"heads.{head}.classes", list(classes),
        "all classes that the data name; a voxel may be of several, and each is learnt only where it "
        "is known",
    )]
    if recipe.loss:
        chosen.append(Choice(
            f"heads.{head}.loss", recipe.loss,
            "cross entropy, in which every known voxel weighs the same, and Dice, which keeps rare "
            "classes in sight",
        ))
    return chosen


def network_choices(plan: NetworkPlan, size: Sequence[float], machine: Machine) -> list[Choice]:
    """Explain the sizes of a network for voxels of `size`, nm (z, y, x)."""
    return [
        Choice(
            "network.features", list(plan.features),
            f"channels of the levels, for {machine}; twice as many make a step about three times as "
            "long",
        ),
        *_level_choices(plan, size, machine),
        Choice(
            "tile_shape", list(plan.tile_shape),
            "output of one pass of a prediction, which needs less memory than training; any multiple of "
            "the product of the poolings gives the same values",
        ),
    ]


def _level_choices(plan: NetworkPlan, size: Sequence[float], machine: Machine) -> list[Choice]:
    flat = is_flat(size, machine.device)
    context = [round(n * s) for n, s in zip(plan.context, size, strict=True)]
    pooling = (
        "in the plane alone: voxels are longer than wide, and sections are seen one by one" if flat
        else "in the plane alone until voxels are as long as wide, then along all axes"
    )
    kernels = (
        "single sections: without a GPU, kernels across thick sections make an iteration three to "
        "four times as long" if flat
        else "across sections only on levels whose voxels are nearly as long as wide"
    )
    return [
        Choice("network.pooling", [list(pool) for pool in plan.pooling], pooling),
        Choice(
            "network.kernels", [[list(kernel) for kernel in level] for level in plan.kernels],
            f"{kernels}. Together they see {list(plan.context)} voxels, {context} nm, beyond the output "
            "on every side: context is never set, it follows, and is mirrored where raw ends",
        ),
    ]


def training_choices(
    plan: NetworkPlan, recipe: Recipe, training: dict, machine: Machine, size: Sequence[float]
) -> list[Choice]:
    """Explain samples, batches and time of `training`, for voxels of `size`, nm (z, y, x)."""
    batch = training["batch_size"]
    return [
        *_sample_choices(plan, batch, machine, flat=is_flat(size, machine.device)),
        Choice(
            "training.augment", "see config.json",
            f"elastic deformation of {recipe.jitter_pixels:g} voxels, none across thick sections; "
            f"changes of contrast, noise and blur{_defects(size)}",
        ),
        Choice(
            "training.sampling", training["sampling"]["foreground"],
            "half of the samples must hold this much of a class, or rare ones would hardly be seen; the "
            "rest is taken anywhere in the crops",
        ),
        Choice("training.iterations", recipe.iterations, _time(plan, recipe, batch, machine)),
    ]


def _sample_choices(
    plan: NetworkPlan, batch: int, machine: Machine, *, flat: bool
) -> list[Choice]:
    cores = "" if flat or machine.device != "cpu" else "; cores learn more from more iterations"
    thin = "one section, as the network sees no others" if flat else (
        "thin where sections are thick, for those far apart are hardly related"
    )
    return [
        Choice(
            "training.output_shape", list(plan.output_shape),
            "voxels that one sample teaches: a multiple of the product of the poolings, no larger than "
            f"the crops need; {thin}",
        ),
        Choice(
            "training.batch_size", batch,
            f"samples at a time, for {machine}: one needs about {plan.sample_bytes / 1e9:.2g} GB, and "
            f"at most half of the memory is used{cores}",
        ),
        Choice(
            "training.precision", machine.precision,
            "the fastest that this machine computes in hardware; with a GPU of your own, bf16",
        ),
    ]


def _defects(size: Sequence[float]) -> str:
    return ", and missing or faint sections, as series of sections have them" if is_thick(size) else ""


def _time(plan: NetworkPlan, recipe: Recipe, batch: int, machine: Machine) -> str:
    go_on = (
        f"with a validation every {recipe.validate_every}; while the score rises, go on with --resume "
        "--iterations N"
    )
    seconds = seconds_per_iteration(plan, batch, machine)
    if seconds is None:
        return go_on
    whole = time_text(seconds * recipe.iterations)
    return (
        f"about {whole} on {machine.cores} idle cores, an estimate: {seconds:.2g} s for each iteration, "
        f"without validations. It runs {go_on}"
    )
