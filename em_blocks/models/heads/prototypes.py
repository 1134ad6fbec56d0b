"""Foreground by the nearest prototype of an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveInt

from em_blocks.models.head import Head
from em_blocks.models.heads.foreground import ForegroundHead
from em_blocks.models.sources import Name
from em_blocks.nets.prototypes import Nearest


class PrototypesHead(ForegroundHead):
    """Foreground by the nearest prototype of an embedding: 1 in every instance, 0 in the background.

    The probability is the sigmoid of the distance to the background's prototype less that to the
    foreground's; see `em_blocks.nets.prototypes.Prototypes`.
    """

    kind: Literal["prototypes"]  # type: ignore[assignment]
    embedding: PositiveInt = Field(24, description="Channels of the embedding.")
    prior: Name = Field(
        "foreground",
        description="Head of the probability with which voxels count for the prototypes; it learns from "
        "this one, too.",
    )

    @property
    def nearest(self) -> Nearest:
        return Nearest(self.embedding, self.prior)

    def check_among(self, heads: Mapping[str, Head]) -> None:
        found = heads.get(self.prior)
        if found is None or (found.channels, found.activation, found.nearest) != (1, "sigmoid", None):
            fitting = [
                name for name, head in heads.items()
                if (head.channels, head.activation, head.nearest) == (1, "sigmoid", None)
            ]
            raise ValueError(
                f"`prior` is {self.prior!r}, which must be a head of one channel with the activation "
                "sigmoid, such as one of the kind foreground: its probability says which voxels count "
                f"for which prototype. There are {fitting or 'none'}"
            )
