"""A valid 3-D U-Net with several heads, indifferent to where tiles begin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from em_blocks.errors import GeometryError
from em_blocks.geometry import Triple, triple
from em_blocks.nets.prototypes import Nearest, Prototypes
from em_blocks.nets.shapes import UNetShapes


def _same(logits: Tensor) -> Tensor:
    return logits


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "identity": _same,
    "tanh": torch.tanh,
    "softmax": functools.partial(torch.softmax, dim=1),
}
RECTIFIERS: dict[str, Callable[[], nn.Module]] = {
    "relu": functools.partial(nn.ReLU, inplace=True),
    "leaky_relu": functools.partial(nn.LeakyReLU, 0.05, inplace=True),
    "elu": functools.partial(nn.ELU, inplace=True),
}


COARSE = 2
"""Level of auxiliary outputs: two poolings below the finest, a quarter of its resolution in sections."""


class Head(NamedTuple):
    """One output of a network."""

    channels: int
    activation: str  # a key of ACTIVATIONS
    unit: float = 1.0  # predictions are the activation's values times this
    nearest: Nearest | None = None  # what its logits are made of, instead of by a pointwise layer


def auxiliary_name(head: str) -> str:
    """Name the auxiliary output of a head."""
    return f"{head}/auxiliary"


class UNet(nn.Module):
    """U-Net without padding; a voxel's value does not depend on its tile.

    There is no normalisation over the tile, up-sampling repeats voxels, and
    sizes are whole multiples of the pooling product, so shifting the input by
    `tile_factor` voxels shifts the output by as much and changes nothing else.

    Parameters
    ----------
    features : sequence of int
        Channels of every level, finest first.
    kernels, pooling
        See `UNetShapes`.
    heads : mapping of name to `Head`
        Outputs, each one a pointwise layer on the finest features.
    decoders : {"shared", "separate"}
        One way up for all heads, or one for each.
    rectifier : {"relu", "leaky_relu", "elu"}
        After every convolution. A leaky one cannot die, as those of narrow decoders do.
    auxiliary : bool
        Whether every head has a second output in training, made of the features of the third level,
        which with the usual poolings have a quarter of the resolution.

    Attributes
    ----------
    context : (z, y, x)
        Input voxels beyond the output, per side.
    tile_factor : (z, y, x)
        Output tiles are multiples of it and begin at multiples of it.

    References
    ----------
    Architecture: doi:10.1007/978-3-319-46723-8_49; cropping so that tiles
    agree: doi:10.1109/TPAMI.2018.2835450.
    """

    def __init__(
        self,
        *,
        features: Sequence[int],
        kernels: Sequence[Sequence[Triple]],
        pooling: Sequence[Triple],
        heads: Mapping[str, Head],
        decoders: str = "shared",
        rectifier: str = "relu",
        auxiliary: bool = False,
    ):
        super().__init__()
        self.shapes = UNetShapes(kernels, pooling)
        if len(features) != len(kernels):
            raise GeometryError(
                f"`features` has {len(features)} entries and `kernels` {len(kernels)}: both list "
                "the levels of the network, finest first."
            )
        self._outputs = {
            name: (ACTIVATIONS[head.activation], head.unit) for name, head in heads.items()
        }
        self._pooling = [tuple(pool) for pool in pooling]
        layers = functools.partial(self.level, rectifier=rectifier)
        self.down = nn.ModuleList(
            layers(before, after, level)
            for before, after, level in zip([1, *features[:-1]], features, kernels, strict=True)
        )
        up = functools.partial(_Decoder, features, kernels, layers, self.joined)
        if decoders == "shared":
            decoder = up()
            self.reduce, self.up = decoder.reduce, decoder.up
        else:
            self.decoders = nn.ModuleDict({name: up() for name in heads})
        self.heads = nn.ModuleDict(
            {
                name: nn.Conv3d(features[0], head.nearest.channels if head.nearest else head.channels, 1)
                for name, head in heads.items()
            }
        )
        self._nearest = {name: head.nearest for name, head in heads.items() if head.nearest}
        self.prototypes = nn.ModuleDict(
            {name: Prototypes(nearest.channels) for name, nearest in self._nearest.items()}
        )
        if auxiliary:
            self._check_levels(len(features))
            self.auxiliary = nn.ModuleDict(
                {name: nn.Conv3d(features[COARSE], head.channels, 1) for name, head in heads.items()}
            )
        self.apply(_initialise)

    joined: ClassVar[int] = 2
    """Channels of what `join` returns, in those of one of the two."""

    @staticmethod
    def _check_levels(n: int) -> None:
        if n <= COARSE:
            raise GeometryError(
                f"The network has {n} levels, but `auxiliary` asks for outputs of its third one, at a "
                "quarter of the resolution. Leave `auxiliary` out, or give `features`, `kernels` and "
                "`pooling` for three levels or more."
            )

    @staticmethod
    def level(before: int, after: int, kernels: Sequence[Triple], rectifier: str) -> nn.Module:
        """Make the layers of one level on one way, which take away what `kernels` do."""
        return _convolutions(before, after, kernels, rectifier)

    @staticmethod
    def join(fine: Tensor, coarse: Tensor) -> Tensor:
        """Bring features of the way down and those from below together, both of one shape."""
        return torch.cat([fine, coarse], dim=1)

    @property
    def context(self) -> Triple:
        return self.shapes.context

    @property
    def tile_factor(self) -> Triple:
        return self.shapes.tile_factor

    def check_tile(self, output_shape: Sequence[int]) -> None:
        """Raise `GeometryError` unless output tiles can have `output_shape` voxels."""
        self.shapes.check_output(output_shape)

    def forward(self, raw: Tensor, heads: Collection[str] | None = None) -> dict[str, Tensor]:
        """Compute the logits of `heads`.

        Parameters
        ----------
        raw : (n, 1, z, y, x) float tensor
            Normalised intensities, `context` voxels larger on every side than
            the output.
        heads : collection of str, optional
            Default: every head.

        Returns
        -------
        dict of (n, channels, z', y', x') tensors
            In training, auxiliary outputs are among them, with the names of `auxiliary_name`.

        Raises
        ------
        GeometryError
            If the input is not a legal tile plus its context.
        """
        output = self.shapes.output_shape(tuple(raw.shape[2:]))
        features = self._features(raw, heads)
        outputs = {name: self.heads[name](levels[0]) for name, levels in features.items()}
        for name in outputs.keys() & self._nearest.keys():
            prior = outputs.get(self._nearest[name].prior)
            outputs[name] = self.prototypes[name](outputs[name], prior)
        if self.training and hasattr(self, "auxiliary"):
            outputs |= {
                auxiliary_name(name): self._repeated(self.auxiliary[name](levels[COARSE]), output)
                for name, levels in features.items()
            }
        return outputs

    def predict(self, raw: Tensor, heads: Collection[str] | None = None) -> dict[str, Tensor]:
        """Compute `forward`, then the activation of the heads, in float32."""
        outputs = {}
        logits = self.forward(raw, heads)
        for name, (activation, unit) in self._outputs.items():
            if name in logits:
                outputs[name] = activation(logits[name].float()) * unit
        return outputs

    def _features(
        self, raw: Tensor, heads: Collection[str] | None
    ) -> dict[str, list[Tensor]]:
        """Compute the features of every level on the way up, finest first, for the heads."""
        levels, wanted = self._encode(raw), [n for n in self.heads if heads is None or n in heads]
        if not hasattr(self, "decoders"):
            return dict.fromkeys(wanted, self._decode(levels, self))
        return {name: self._decode(levels, self.decoders[name]) for name in wanted}

    def _repeated(self, coarse: Tensor, output: Triple) -> Tensor:
        """Repeat the voxels of the third level, and cut the middle of `output` voxels (z, y, x)."""
        # Repeated instead of smaller targets: labels and masks have no mean, and every loss has it
        # as it is. Of a cross entropy it is the same as with the mean of the targets.
        steps = zip(*self._pooling[:COARSE], strict=True)
        fine = functional.interpolate(coarse, scale_factor=tuple(prod(step) for step in steps))
        return crop_sides(
            fine, [(n - m) // 2 for n, m in zip(fine.shape[2:], output, strict=True)]
        )

    def _encode(self, features: Tensor) -> list[Tensor]:
        """Compute the features of every level, finest first."""
        levels = []
        for level, down in enumerate(self.down):
            if level:
                features = functional.max_pool3d(features, self._pooling[level - 1])
            features = down(features)
            levels.append(features)
        return levels

    def _decode(self, levels: list[Tensor], decoder: Any) -> list[Tensor]:
        """Compute features of every level, finest first, by the layers `reduce` and `up`."""
        *fines, features = levels
        decoded = [features]
        for level, fine in reversed(list(enumerate(fines))):
            coarse = decoder.reduce[level](features)
            coarse = functional.interpolate(coarse, scale_factor=self._pooling[level])
            if level == 0:
                coarse = crop_sides(coarse, self.shapes.crop)
            excess = [(a - b) // 2 for a, b in zip(fine.shape[2:], coarse.shape[2:], strict=True)]
            features = decoder.up[level](self.join(crop_sides(fine, excess), coarse))
            decoded.insert(0, features)
        return decoded


class _Decoder(nn.Module):
    """Layers of the way up: `reduce` and `up`, finest level first."""

    def __init__(
        self, features: Sequence[int], kernels: Sequence[Sequence[Triple]],
        layers: Callable[[int, int, Sequence[Triple]], nn.Module], joined: int,
    ):
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Conv3d(coarse, fine, 1) for fine, coarse in pairwise(features)
        )
        self.up = nn.ModuleList(
            layers(joined * channels, channels, level)
            for channels, level in zip(features[:-1], kernels[:-1], strict=True)
        )


def _convolutions(
    before: int, after: int, kernels: Sequence[Triple], rectifier: str
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for kernel in kernels:
        layers += [nn.Conv3d(before, after, triple(kernel)), RECTIFIERS[rectifier]()]
        before = after
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    # Without normalisation layers the initial scale has to keep the variance
    # through the ReLUs, or deep levels start at zero and learn late.
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def crop_sides(features: Tensor, sides: Sequence[int]) -> Tensor:
    """Cut `sides` voxels from both ends of the last three axes."""
    z, y, x = (
        slice(side, size - side) for side, size in zip(sides, features.shape[2:], strict=True)
    )
    return features[:, :, z, y, x]
