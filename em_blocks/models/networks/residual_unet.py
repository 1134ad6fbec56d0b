"""The residual symmetric U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from em_blocks.config import Shape3
from em_blocks.models.head import Head
from em_blocks.models.network import Network
from em_blocks.models.networks.unet import Auxiliary, outputs_of
from em_blocks.nets.residual_unet import ResidualUNet

IN_SECTIONS = (1, 2, 2)
"""Pooling that leaves z as it is."""


class ResidualUNetNetwork(Network):
    """Hyper-parameters of a valid residual U-Net, finest level first."""

    kind: Literal["residual_unet"]
    features: tuple[PositiveInt, ...] = Field(description="Channels of every level.")
    kernels: tuple[tuple[Shape3, ...], ...] = Field(
        description="Convolution kernels of every level, voxels (z, y, x): that of its first "
        "convolution, then those of its residual block."
    )
    pooling: tuple[Shape3, ...] = Field(
        description="Pooling between consecutive levels. Default: (1, 2, 2), so that z is never pooled."
    )
    decoders: Literal["shared", "separate"] = Field(
        "shared", description="One decoder for all heads, or one for each behind the same encoder."
    )
    auxiliary: Auxiliary = None

    @model_validator(mode="before")
    @classmethod
    def _pool_in_sections(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("kernels"), (list, tuple)):
            return values
        return {"pooling": [IN_SECTIONS] * (len(values["kernels"]) - 1)} | values

    def build(self, heads: Mapping[str, Head]) -> nn.Module:
        """Make an `em_blocks.nets.residual_unet.ResidualUNet` with random weights."""
        values = self.model_dump(exclude={"kind", "auxiliary"})
        return ResidualUNet(
            **values, rectifier="elu", heads=outputs_of(heads), auxiliary=self.auxiliary is not None
        )

    def content(self) -> dict:
        return self.model_dump(mode="json", exclude={"auxiliary"})  # predictions are without it
