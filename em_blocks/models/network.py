"""The contract of networks: all that a setup asks of a kind of network.

A kind is its config, as a head is. A new one is a subclass of `Network` in a file of its own and a line
in `NETWORKS`; outside of em_blocks, an entry point of the group "em_blocks.networks".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import nn

from em_blocks.config import StrictModel
from em_blocks.models.head import Head
from em_blocks.plugins import Registry


class Network(StrictModel, ABC):
    """Hyper-parameters of a network.

    Attributes
    ----------
    trainable : bool
        False for networks that are only predicted with.
    """

    trainable: ClassVar[bool] = True

    kind: str

    @abstractmethod
    def build(self, heads: Mapping[str, Head]) -> nn.Module:
        """Make the network, with random weights unless `weights` names a file of them.

        Returns
        -------
        torch module
            An `em_blocks.nets.inference.TileNetwork` with ``check_tile(output_shape)``, as
            `em_blocks.nets.unet.UNet` is.

        Raises
        ------
        EmBlocksError
            If there is no such network.
        """

    @property
    def weights(self) -> Path | None:
        """The file that holds the network together with its weights; None: checkpoints hold them."""
        return None

    def content(self) -> dict:
        """Return what decides the values it computes, its weights apart, as JSON: no paths."""
        return self.model_dump(mode="json")


NETWORKS = Registry(
    "em_blocks.networks",
    {
        "unet": "em_blocks.models.networks.unet:UNetNetwork",
        "residual_unet": "em_blocks.models.networks.residual_unet:ResidualUNetNetwork",
        "onnx": "em_blocks.models.networks.onnx:OnnxNetwork",
    },
    base="em_blocks.models.network:Network",
)
