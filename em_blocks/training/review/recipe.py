"""How a network is trained: values that depend on the kind of machine, and the time they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from em_blocks.models.network_plan import NetworkPlan, is_flat, is_thick

PER_CORE_S = 1e10
"""Multiplications of a pass that a core trains with in a second (fp32): measured as 0.62 core seconds
for an iteration of two samples of the flat network, loading included (AMD EPYC); without loading,
passes forth and back of flat and cubic networks reached 1.1e10 to 1.6e10."""


class Machine(NamedTuple):
    """What trains.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    memory_gb : float
        Of the GPU, or of the computer.
    precision : {"fp32", "bf16", "fp16"}
        The fastest in hardware.
    cores : int
        Of the CPU.
    """

    device: str
    memory_gb: float
    precision: str
    cores: int = 1

    def __str__(self) -> str:
        return f"{'a GPU' if self.device == 'cuda' else 'a CPU'} with {self.memory_gb:.3g} GB"


class Recipe(NamedTuple):
    """Values of a training that do not follow from the data.

    Attributes
    ----------
    most_batch : int
        Samples at a time, if memory suffices.
    loss : dict or None
        Of the head; None is its default.
    optimizer : dict
        Keys of `training`.
    control_pixels, jitter_pixels : float
        Spacing and movement of elastic control points.
    augment : dict
        Further keys of `training.augment`.
    defects : float
        Share of missing sections, where sections are thick.
    """

    most_batch: int
    iterations: int
    validate_every: int
    loss: dict[str, Any] | None
    optimizer: dict[str, float]
    control_pixels: float
    jitter_pixels: float
    augment: dict[str, float]
    defects: float


_USUAL = Recipe(
    most_batch=4, iterations=4000, validate_every=200, loss=None, optimizer={"learning_rate": 0.001},
    control_pixels=32, jitter_pixels=2, defects=0.02,
    augment={"elastic": 0.6, "scale": 0.1, "gamma": 0.2, "contrast": 0.3, "brightness": 0.15,
             "noise": 0.04, "blur": 0.8},
)  # fmt: skip
_CORES = _USUAL._replace(most_batch=1)
"""Cores learn more from more iterations; a GPU would not be busy with one sample."""
_FLAT = Recipe(
    most_batch=2, iterations=9000, validate_every=250,
    loss={"kind": "ce_dice", "clip": [0.5, 0.5]},
    optimizer={"learning_rate": 0.002, "warmup": 100, "weight_decay": 0.0001, "ema_decay": 0.998},
    control_pixels=40, jitter_pixels=2.5, defects=0.01,
    augment={"elastic": 0.8, "scale": 0.15, "gamma": 0.3, "contrast": 0.3, "brightness": 0.15,
             "noise": 0.05, "blur": 0.8},
)  # fmt: skip
"""The recipe that was measured to work on two cores: setups of thick sections without a GPU."""


def recipe_for(voxel_size: Sequence[float], machine: Machine) -> Recipe:
    """Return the recipe for voxels of this size, nm (z, y, x), on this machine."""
    if is_flat(voxel_size, machine.device):
        return _FLAT
    return _CORES if machine.device == "cpu" else _USUAL


def augment_of(recipe: Recipe, size: Sequence[float]) -> dict[str, Any]:
    """Return `training.augment` for voxels of this size, nm (z, y, x)."""
    thick, pixel = is_thick(size), size[2]
    spacing = [recipe.control_pixels * pixel] * 3
    if thick:
        spacing[0] = max(spacing[0], 4 * size[0])
    jitter = [0.0 if thick else recipe.jitter_pixels * size[0],
              *(recipe.jitter_pixels * n for n in size[1:])]  # fmt: skip
    defects = {"missing_sections": recipe.defects, "faint_sections": 0.02} if thick else {}
    return {"control_point_nm": spacing, "jitter_nm": jitter, **recipe.augment, **defects}


def seconds_per_iteration(plan: NetworkPlan, batch: int, machine: Machine) -> float | None:
    """Estimate the time of an iteration on all cores, idle; None with a GPU."""
    if machine.device != "cpu":
        return None
    return batch * plan.multiplications / (PER_CORE_S * machine.cores)


def time_text(seconds: float) -> str:
    """Return a time in minutes, or in hours if there are many."""
    minutes = seconds / 60
    return f"{max(1, round(minutes))} min" if minutes < 120 else f"{minutes / 60:.1f} h"
