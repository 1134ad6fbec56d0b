"""A valid U-Net of residual blocks, whose skips are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from em_blocks.geometry import Triple, triple
from em_blocks.nets.unet import RECTIFIERS, UNet, crop_sides


class ResidualUNet(UNet):
    """Residual symmetric U-Net without padding; a voxel's value does not depend on its tile.

    A level is a convolution and a residual block, the same on both ways; what comes up from below is
    added to the features of the way down. Parameters are those of `UNet`: the first kernel of a level
    is that of its convolution, the others are those of the block.

    The published network normalises over batches and pads. Here nothing is normalised, and the last
    convolution of every block begins at zero instead, so that the variance at the beginning does not
    depend on the depth.

    References
    ----------
    Residual symmetric U-Net: arXiv:1706.00120. Blocks without normalisation: arXiv:1901.09321.
    """

    joined: ClassVar[int] = 1

    def __init__(self, **arguments):
        super().__init__(**arguments)
        for module in self.modules():
            if isinstance(module, _ResidualLevel):
                module.begin_as_identity()

    @staticmethod
    def level(before: int, after: int, kernels: Sequence[Triple], rectifier: str) -> nn.Module:
        return _ResidualLevel(before, after, kernels, rectifier)

    @staticmethod
    def join(fine: Tensor, coarse: Tensor) -> Tensor:
        return fine + coarse


class _ResidualLevel(nn.Module):
    """A convolution, and a block that is added to its result."""

    def __init__(self, before: int, after: int, kernels: Sequence[Triple], rectifier: str):
        super().__init__()
        first, *rest = kernels
        rectify = RECTIFIERS[rectifier]
        self.enter = nn.Sequential(nn.Conv3d(before, after, triple(first)), rectify())
        block: list[nn.Module] = []
        for kernel in rest:
            block += [rectify()] if block else []
            block.append(nn.Conv3d(after, after, triple(kernel)))
        self.block = nn.Sequential(*block)
        self.rectify = rectify()
        self._lost = [sum(kernel[axis] // 2 for kernel in rest) for axis in range(3)]

    def forward(self, features: Tensor) -> Tensor:
        entered = self.enter(features)
        if not len(self.block):
            return entered
        return self.rectify(self.block(entered) + crop_sides(entered, self._lost))

    def begin_as_identity(self) -> None:
        """Let the block add nothing at first."""
        if len(self.block):
            for values in self.block[-1].parameters():
                nn.init.zeros_(values)
