"""Classes of voxels, such as organelles, each known in some places and unknown in others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, PositiveInt, model_validator

from em_blocks.models.counted import CountedHead
from em_blocks.models.head import Better, Storage
from em_blocks.models.scores.classes import balanced_ce, class_scores, count_class
from em_blocks.models.scores.voxels import mean_of_known
from em_blocks.models.sources import Name
from em_blocks.models.truth import OBJECT, UNKNOWN, Truth
from em_blocks.nets.class_losses import BalancedCE

REST = "background"
"""Name of the first channel where classes exclude one another."""

FOUND, MISSED, WRONG = (0, 158, 115), (213, 94, 0), (0, 114, 178)
"""Colours that the colour-blind tell apart: Okabe and Ito, jfly.uni-koeln.de/color."""

_PER_CLASS: dict[str, Better] = {
    "f1": "higher", "jaccard": "higher", "precision": "higher", "recall": "higher",
    "best_threshold": "neither", "best_f1": "higher",
}


def _channels_may_be_missing(schema: dict[str, Any]) -> None:
    """Bring the JSON schema into line with `_count_channels`, of which pydantic knows nothing."""
    schema["required"].remove("channels")


class ClassesHead(CountedHead):
    """Probability of every class in every voxel."""

    model_config = ConfigDict(json_schema_extra=_channels_may_be_missing)

    kind: Literal["classes"]
    classes: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        description="Names of the classes, which sources give in `classes`."
    )
    activation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid",
        description="sigmoid: one channel for each class, and a voxel may be of several. softmax: the "
        "classes exclude one another; the first channel is the background, then the classes.",
    )
    channels: PositiveInt = Field(description="Follows from the classes, and may be left out.")
    overlap: Literal["background", "first", "unknown"] = Field(
        "background",
        description="With softmax, what a voxel is that is labelled as several classes: background, the "
        "first of them in the order of `classes`, or unknown.",
    )

    @model_validator(mode="before")
    @classmethod
    def _count_channels(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("classes"), (list, tuple)):
            return values
        own = len(values["classes"]) + (values.get("activation") == "softmax")
        return {"channels": own} | values

    @model_validator(mode="after")
    def _one_channel_per_class(self) -> Self:
        if self.channels != len(self.channel_names):
            raise ValueError(
                f"channels is {self.channels}, but {self.activation} of {len(self.classes)} classes has "
                f"{len(self.channel_names)}: {', '.join(self.channel_names)}. Leave `channels` out"
            )
        if len(set(self.channel_names)) != self.channels:
            raise ValueError(f"the classes are {self.channel_names}: each needs a name of its own")
        return self

    @model_validator(mode="after")
    def _overlap_of_exclusive_classes(self) -> Self:
        if self.overlap != "background" and self.activation == "sigmoid":
            raise ValueError(
                f"`overlap` is {self.overlap!r}, but classes may overlap with the activation sigmoid: "
                "leave it out, or use softmax"
            )
        return self

    @model_validator(mode="after")
    def _loss_has_weights_of_all(self) -> Self:
        weights = getattr(self.loss, "class_weights", None)
        if weights is not None and len(weights) != self.channels:
            raise ValueError(
                f"`class_weights` of the loss has {len(weights)} entries, but there are the channels "
                f"{', '.join(self.channel_names)}: give one for each"
            )
        return self

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels: those of the classes, behind the background with softmax."""
        return self.classes if self.activation == "sigmoid" else (REST, *self.classes)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(f"labels/{name}" for name in self.classes)

    @property
    def default_loss(self) -> BalancedCE:
        return BalancedCE()

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        """Say of which channels every voxel is or may be, and where anything is known.

        Returns
        -------
        dict of uint8 arrays
            With sigmoid, "target" (c, z, y, x) is 1 in the class, and "mask" (c, z, y, x) where that
            is known. With softmax, "target" is 1 in every channel that a voxel may be of, and "mask"
            (z, y, x) where that leaves any out.
        """
        labels = np.stack([truth.labels[name] for name in self.classes])
        if self.activation == "sigmoid":
            made = {"target": labels == OBJECT, "mask": labels != UNKNOWN}
        else:
            made = self._exclusive(labels)
        return {key: values.astype(np.uint8) for key, values in made.items()}

    def _exclusive(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        inside = labels == OBJECT
        claims = inside.sum(axis=0)
        single = inside & (np.cumsum(inside, axis=0) == 1)
        if self.overlap != "first":
            single &= claims == 1
        found = single.any(axis=0)
        # Without a class that holds, a voxel is background, or of a class that is unknown there.
        open_to = np.where(claims == 0, labels == UNKNOWN, False)
        possible = np.concatenate([~found[None], np.where(found, single, open_to)])
        mask: np.ndarray = np.any(~possible, axis=0)
        if self.overlap == "unknown":
            mask = mask & (claims <= 1)
        return {"target": possible | ~mask, "mask": mask}

    def score_names(self) -> dict[str, Better]:
        names: dict[str, Better] = {"f1": "higher", "jaccard": "higher", "balanced_ce": "lower"}
        for name in self.classes:
            names |= {f"{name}_{key}": better for key, better in _PER_CLASS.items()}
        return names

    def tally(self, predicted: np.ndarray, truth: Truth) -> np.ndarray:
        """Count the voxels of every class and of the rest by probability, (classes, 2, 257)."""
        wanted, known = self._certain(self.targets(truth))
        own = slice(self.channels - len(self.classes), None)
        channels = zip(predicted[own], wanted[own], known[own], strict=True)
        return np.stack([count_class(*arrays) for arrays in channels])

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """Score every class against the rest: voxels that may be of it, but need not, do not count."""
        classes = dict(zip(self.classes, map(class_scores, counts), strict=True))
        found = {
            "f1": mean_of_known([scores.f1 for scores in classes.values()]),
            "jaccard": mean_of_known([scores.jaccard for scores in classes.values()]),
            "balanced_ce": mean_of_known([balanced_ce(part) for part in counts]),
        }
        for name, scores in classes.items():
            found |= {f"{name}_{key}": getattr(scores, key) for key in _PER_CLASS}
        return found

    def _certain(self, made: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Find which voxels are of each channel, and where that is certain; (c, z, y, x) bool."""
        target, mask = made["target"] > 0, made["mask"] > 0
        if self.activation == "sigmoid":
            return target, mask
        single = target.sum(axis=0) == 1
        return target & single, mask & (single | ~target)

    @property
    def storage(self) -> Storage:
        return Storage(attributes={"classes": list(self.channel_names)})

    def picture(self, values: np.ndarray) -> np.ndarray:
        return self.overlay(values, np.zeros(values.shape[-2:], np.float32))

    def overlay(self, values: np.ndarray, grey: np.ndarray) -> np.ndarray:
        """Show every class in a colour of its own, as strong as it is probable."""
        from em_blocks.kernels.plots.sections import class_picture

        shares = np.asarray(values, np.float32).reshape(-1, *values.shape[-2:])
        if self.activation == "softmax":  # targets may name several channels
            shares = (shares / np.maximum(shares.sum(axis=0), 1e-6))[1:]
        return class_picture(grey, shares)

    def mistakes(
        self, predicted: np.ndarray, made: Mapping[str, np.ndarray], grey: np.ndarray
    ) -> np.ndarray:
        """Show what is found in green, missed in orange and wrong in blue, of all classes."""
        from em_blocks.kernels.plots.sections import class_picture

        wanted, known = self._certain(made)
        called, own = predicted >= 0.5, slice(self.channels - len(self.classes), None)
        shares = [
            (known & part)[own].any(axis=0)
            for part in (wanted & called, wanted & ~called, called & ~wanted)
        ]
        return class_picture(grey, np.array(shares), colours=(FOUND, MISSED, WRONG))
