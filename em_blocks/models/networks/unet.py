"""The valid U-Net that em_blocks trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from em_blocks.config import Shape3
from em_blocks.models.head import Head
from em_blocks.models.network import Network
from em_blocks.nets.unet import Head as Output
from em_blocks.nets.unet import UNet

Auxiliary = Annotated[
    PositiveFloat | None,
    Field(
        exclude_if=lambda weight: weight is None,
        description="In training, every head has a second output at a quarter of the resolution, whose "
        "loss counts this much, usually 0.5. Default: none.",
    ),
]


class UNetNetwork(Network):
    """Hyper-parameters of a valid U-Net, finest level first."""

    # Left out of dumps: there was no other kind when the first setups were trained, and their
    # fingerprints hold what is dumped.
    kind: Literal["unet"] = Field("unet", exclude_if=lambda kind: True)
    features: tuple[PositiveInt, ...] = Field(description="Channels of every level.")
    kernels: tuple[tuple[Shape3, ...], ...] = Field(
        description="Convolution kernels of every level, voxels (z, y, x)."
    )
    pooling: tuple[Shape3, ...] = Field(description="Pooling between consecutive levels.")
    decoders: Literal["shared", "separate"] = Field(
        "shared", description="One decoder for all heads, or one for each behind the same encoder."
    )
    rectifier: Literal["relu", "leaky_relu"] = Field(
        "relu", description="After every convolution; a leaky one cannot die in narrow layers."
    )
    auxiliary: Auxiliary = None

    def build(self, heads: Mapping[str, Head]) -> nn.Module:
        """Make an `em_blocks.nets.unet.UNet` with random weights."""
        values = self.model_dump(exclude={"auxiliary"})
        return UNet(**values, heads=outputs_of(heads), auxiliary=self.auxiliary is not None)

    def content(self) -> dict:
        return self.model_dump(mode="json", exclude={"auxiliary"})  # predictions are without it


def outputs_of(heads: Mapping[str, Head]) -> dict[str, Output]:
    """Say what a U-Net computes for each head."""
    return {
        name: Output(head.channels, head.activation, getattr(head, "unit_nm", 1.0), head.nearest)
        for name, head in heads.items()
    }
