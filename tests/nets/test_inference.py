"""Tiles, batches, blending, symmetries and quantisation around a network."""

import numpy as np
import pytest
import torch

from em_blocks.kernels.transforms.symmetry import (
    Symmetry,
    symmetries,
    undo_affinities,
    undo_descriptors,
    undo_vectors,
)
from em_blocks.nets.inference import HeadFormat, TilePredictor, quantise

NEIGHBORHOOD = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -2, 0), (0, 0, -2)]


class Edges(torch.nn.Module):
    """Affinity of equal partners: a network without weights whose symmetries are known."""

    context = (2, 2, 2)

    def predict(self, raw, heads=None):
        inner = raw[:, 0, 2:-2, 2:-2, 2:-2]
        size = inner.shape[1:]
        channels = []
        for shift in NEIGHBORHOOD:
            at = tuple(slice(2 + s, 2 + s + n) for s, n in zip(shift, size, strict=True))
            channels.append(torch.exp(-((inner - raw[(slice(None), 0, *at)]) ** 2)))
        return {"edges": torch.stack(channels, 1), "raw": inner[:, None]}


class Padding(torch.nn.Module):
    """A network that pads: a 3x3x3 mean that sees zeros beyond its tile."""

    context = (0, 0, 0)

    def predict(self, raw, heads=None):
        return {"mean": torch.nn.functional.avg_pool3d(raw, 3, stride=1, padding=1)}


def predictor(network, heads, tile=(4, 6, 6), **options):
    return TilePredictor(network, heads=heads, tile_shape=tile, scale=1.0, shift=0.0, **options)


def predict(predictor, volume, begin, end):
    """As the task does: pad the volume by reflection, cut what the box needs."""
    first, last = predictor.input_box(begin, end)
    margin = 20
    padded = np.pad(volume, margin, mode="reflect")
    at = tuple(slice(f + margin, e + margin) for f, e in zip(first, last, strict=True))
    return predictor.predict(padded[at], begin, end)


@pytest.fixture
def volume():
    return np.random.default_rng(0).random((10, 17, 15)).astype(np.float32)


def undo_edges(values, symmetry):
    return undo_affinities(values, symmetry, NEIGHBORHOOD)


HEADS = {"edges": HeadFormat("float32", inverse=undo_edges), "raw": HeadFormat("float32")}


class Slopes(torch.nn.Module):
    """Ten channels that mirrors and swaps change as they change shape descriptors."""

    context = (1, 1, 1)

    def predict(self, raw, heads=None):
        v = raw[:, 0].double()
        slope = [(v.roll(-1, axis) - v.roll(1, axis)) / 4 for axis in (1, 2, 3)]
        pairs = [slope[a] * slope[b] for a, b in ((0, 1), (0, 2), (1, 2))]
        channels = [0.5 + s for s in slope] + [s**2 for s in slope]
        channels += [0.5 + p for p in pairs] + [v]
        return {"lsd": torch.stack(channels, 1)[..., 1:-1, 1:-1, 1:-1].float()}


class Uphill(torch.nn.Module):
    """Vectors up the gradient of raw, beside a head without directions."""

    context = (1, 1, 1)

    def predict(self, raw, heads=None):
        v = raw[:, 0]
        slope = torch.stack([v.roll(-1, axis) - v.roll(1, axis) for axis in (1, 2, 3)], 1)
        inner = (..., *[slice(1, -1)] * 3)
        return {"vectors": slope[inner], "raw": raw[inner]}


@pytest.mark.parametrize("transposes", [False, True])
def test_averaging_over_symmetries_turns_direction_vectors_back(volume, transposes):
    heads = {
        "vectors": HeadFormat("float32", inverse=lambda v, symmetry: [(..., undo_vectors(v, symmetry))]),
        "raw": HeadFormat("float32"),
    }
    plain, _ = predict(predictor(Uphill(), heads), volume, (0, 0, 0), volume.shape)
    averaging = predictor(Uphill(), heads, symmetries=symmetries(transposes=transposes))
    averaged, _ = predict(averaging, volume, (0, 0, 0), volume.shape)
    assert np.abs(plain["vectors"]).mean() > 0.1
    for name in heads:
        np.testing.assert_allclose(averaged[name], plain[name], atol=1e-6)


@pytest.mark.parametrize("transposes", [False, True])
def test_averaging_over_symmetries_turns_shape_descriptors_back(volume, transposes):
    heads = {"lsd": HeadFormat("float32", inverse=lambda v, s: [(..., undo_descriptors(v, s))])}
    plain, _ = predict(predictor(Slopes(), heads), volume, (0, 0, 0), volume.shape)
    averaging = predictor(Slopes(), heads, symmetries=symmetries(transposes=transposes))
    averaged, _ = predict(averaging, volume, (0, 0, 0), volume.shape)
    np.testing.assert_allclose(averaged["lsd"], plain["lsd"], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_and_boxes_do_not_change_the_values(volume, batch_size):
    whole, _ = predict(predictor(Edges(), HEADS), volume, (0, 0, 0), volume.shape)
    np.testing.assert_array_equal(whole["raw"][0], volume)
    part, _ = predict(
        predictor(Edges(), HEADS, batch_size=batch_size), volume, (3, 5, 2), (9, 17, 11)
    )
    np.testing.assert_allclose(part["edges"], whole["edges"][:, 3:9, 5:17, 2:11], atol=1e-6)


@pytest.mark.parametrize("transposes", [False, True])
def test_a_symmetric_network_is_not_changed_by_averaging_over_symmetries(volume, transposes):
    plain, _ = predict(predictor(Edges(), HEADS), volume, (0, 0, 0), volume.shape)
    averaging = predictor(Edges(), HEADS, symmetries=symmetries(transposes=transposes))
    averaged, _ = predict(averaging, volume, (0, 0, 0), volume.shape)
    for name in HEADS:
        np.testing.assert_allclose(averaged[name], plain[name], atol=1e-6)


class Flat(torch.nn.Module):
    """Values of raw times a ramp along y: not symmetric, and without context along z."""

    context = (0, 1, 1)

    def predict(self, raw, heads=None):
        self.calls = getattr(self, "calls", 0) + 1
        ramp = torch.arange(raw.shape[-2])[:, None].float()
        return {"raw": (raw * ramp)[..., 1:-1, 1:-1]}


def test_single_sections_are_averaged_over_the_symmetries_within_them(volume):
    heads, network = {"raw": HeadFormat("float32")}, Flat()
    averaging = predictor(
        network, heads, tile=(1, 4, 4), symmetries=symmetries(transposes=True)
    )
    averaged, _ = predict(averaging, volume, (0, 0, 0), (1, 4, 4))
    np.testing.assert_allclose(averaged["raw"][0], volume[:1, :4, :4] * 2.5, rtol=1e-6)
    assert network.calls == 8


def test_averaging_uses_every_symmetry(volume):
    seen = []

    class Spy(Edges):
        def predict(self, raw, heads=None):
            seen.append(float(raw[0, 0, 0, 0, 0]))
            return super().predict(raw, heads)

    predict(predictor(Spy(), HEADS, symmetries=symmetries(transposes=True)), volume, (0, 0, 0),
            (4, 6, 6))
    assert len(seen) == 16 and len(set(seen)) == 8  # eight corners, each seen in two transposes


def test_blending_hides_the_seams_of_a_network_that_pads(volume):
    smooth = np.ones((16, 24, 24), np.float32)
    heads = {"mean": HeadFormat("float32")}
    box = ((4, 6, 6), (12, 18, 18))
    seams, _ = predict(predictor(Padding(), heads), smooth, *box)
    blended, _ = predict(predictor(Padding(), heads, overlap=(2, 3, 3)), smooth, *box)
    assert np.abs(blended["mean"] - 1).max() < np.abs(seams["mean"] - 1).max()
    halves = [
        predict(predictor(Padding(), heads, overlap=(2, 3, 3)), smooth, b, e)[0]["mean"]
        for b, e in ((box[0], (12, 18, 12)), ((4, 6, 12), box[1]))
    ]
    np.testing.assert_allclose(np.concatenate(halves, -1), blended["mean"], atol=1e-6)


def test_quantised_values_are_rounded_and_the_clipped_ones_counted():
    values = torch.tensor([-0.1, 0.0, 0.1004, 0.5, 1.0, 1.2])
    stored, clipped = quantise(values, HeadFormat("uint8", scale=255.0))
    np.testing.assert_array_equal(stored, [0, 0, 26, 128, 255, 255])
    assert stored.dtype == np.uint8 and clipped == 2
    stored, clipped = quantise(values, HeadFormat("float16"))
    assert stored.dtype == np.float16 and clipped == 0


def test_nan_is_an_error_not_a_zero():
    with pytest.raises(ArithmeticError, match="NaN"):
        quantise(torch.tensor([1.0, float("nan")]), HeadFormat("uint8", scale=255.0))


def test_the_identity_alone_is_the_default():
    assert predictor(Edges(), HEADS).symmetries == [Symmetry()]
