"""Foreground: 1 in every instance, 0 in the background."""

from __future__ import annotations

from typing import Literal

import numpy as np

from em_blocks.models.heads.instances import InstanceMaskHead
from em_blocks.models.truth import Truth
from em_blocks.nets.class_losses import CEDice


class ForegroundHead(InstanceMaskHead):
    """Foreground: 1 in every instance, 0 in the background."""

    kind: Literal["foreground"]
    activation: Literal["sigmoid"] = "sigmoid"

    @property
    def default_loss(self) -> CEDice:
        return CEDice(clip=(0.5, 0.5))  # Dice already weighs both sides

    def marked(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        return truth.labels[self.labels] != 0, self.known(truth)
