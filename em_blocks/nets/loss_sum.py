"""A weighted sum of losses of one head."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, WithJsonSchema, model_validator
from torch import Tensor

from em_blocks.by_kind import ByKind
from em_blocks.nets.losses import LOSSES, Activation, Loss

Term = Annotated[
    Loss, ByKind(LOSSES),
    # A JSON Schema of all losses would hold this one, and so have no end.
    WithJsonSchema({"type": "object", "description": "A loss, by its `kind`."}),
]


class LossSum(Loss):
    """The weighted sum of other losses, such as cross entropy and Dice."""

    kind: Literal["sum"] = "sum"
    losses: Annotated[tuple[Term, ...], Field(min_length=1)]
    weights: tuple[PositiveFloat, ...] | None = Field(
        None, description="Weight of every one of `losses`; default: all 1."
    )

    @model_validator(mode="after")
    def _one_weight_for_each(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.losses):
            raise ValueError(
                f"there are {len(self.losses)} `losses`, but {len(self.weights)} `weights`: give one "
                "for each, or leave `weights` out"
            )
        return self

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        weights = self.weights or (1.0,) * len(self.losses)
        terms = [
            weight * loss(logits, target, mask, activate=activate)
            for weight, loss in zip(weights, self.losses, strict=True)
        ]
        return torch.stack(terms).sum()
