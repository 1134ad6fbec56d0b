"""Validation scores of several heads together, as entries of a setup's config.

A new one is a subclass of `JointScore` in a file of its own and a line in `JOINT_SCORES`; outside of
em_blocks, an entry point of the group "em_blocks.scores".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from em_blocks.config import StrictModel
from em_blocks.models.head import Better, Head
from em_blocks.models.truth import Truth
from em_blocks.plugins import Registry


class JointScore(StrictModel, ABC):
    """A score of the predictions of several heads.

    Attributes
    ----------
    joins : mapping of field to kind of head
        Fields that name a head. A setup that has a head of every kind gets the score unless its
        config lists `scores`.
    """

    joins: ClassVar[Mapping[str, str]]

    kind: str

    @classmethod
    def of(cls, heads: Mapping[str, Head]) -> Self | None:
        """Return the score of the heads that it is made for; None if a setup lacks one of them."""
        names = {head.kind: name for name, head in heads.items()}
        if not set(cls.joins.values()) <= names.keys():
            return None
        return cls(**{field: names[kind] for field, kind in cls.joins.items()})

    def head_names(self) -> list[str]:
        """Name the heads that are read."""
        return [getattr(self, field) for field in self.joins]

    @abstractmethod
    def score_names(self) -> dict[str, Better]:
        """Name all that `scores` returns, as "group/name"."""

    @abstractmethod
    def scores(self, predicted: Mapping[str, np.ndarray], truth: Truth) -> dict[str, float]:
        """Score the predictions (c, z, y, x) of all heads, by name."""


JOINT_SCORES = Registry(
    "em_blocks.scores",
    {
        "partners": "em_blocks.models.scores.partners:PartnerScore",
        "instances": "em_blocks.models.scores.instances:InstanceScore",
    },
    base="em_blocks.models.joint:JointScore",
)


def usual_scores(heads: Mapping[str, Head]) -> tuple[JointScore, ...]:
    """Return the joint scores of em_blocks that suit the heads of a setup."""
    made = (JOINT_SCORES.get(kind).of(heads) for kind in JOINT_SCORES.builtin)
    return tuple(score for score in made if score is not None)
