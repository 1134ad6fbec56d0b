"""Batches: reproducible, aligned with their labels, never empty."""

import itertools

import numpy as np
import pytest

from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import Frame
from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.segmentation.lsd import shape_descriptors
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.augment import largest_read
from em_blocks.training.data.needs import check_volumes
from em_blocks.training.data.samples import prefetch
from em_blocks.training.data.sources import TrainingData, open_sources
from em_blocks.training.data.units import world
from em_blocks.training.loading.stream import BatchStream
from em_blocks.volumes import Volume
from tiny_setup import tiny_config

SHAPE = (40, 64, 64)
STILL = {"contrast": 0, "brightness": 0, "noise": 0, "blur": 0}


def config(voxel_size=(10, 10, 10), augment=None, **training):
    values = tiny_config()
    values["voxel_size"] = list(voxel_size)
    values["training"] |= training
    values["training"]["augment"] |= augment or {}
    return SetupConfig.from_dict(values)


def stripes(labels=None):
    """Labels in boxes of 6 voxels; raw is a function of the label, so both can be compared."""
    z, y, x = np.indices(SHAPE) // 6
    labels = (1 + z + 5 * y + 60 * x).astype(np.uint64) if labels is None else labels
    raw = (labels % 251).astype(np.uint8)
    return TrainingData("stripes", raw, {"labels": labels}, (0, 0, 0), SHAPE, 1.0)


def stream(config, *sources):
    return BatchStream(config, sources or [stripes()], (1, 2, 2))


def labels_of(batch):
    return np.stack([sample.truth.labels["labels"] for sample in batch.samples])


def first(stream, n=3, begin=0):
    return list(itertools.islice(stream.batches(begin, begin + n), n))


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    one, two = first(stream(config())), first(stream(config()))
    other = first(stream(config(seed=2)))
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(one[0]["raw"], other[0]["raw"])
    assert not np.array_equal(one[0]["raw"], one[1]["raw"])


def test_a_batch_does_not_depend_on_those_before_it():
    whole = first(stream(config()), 4)
    [later] = first(stream(config()), 1, begin=3)
    assert all(np.array_equal(whole[3][key], later[key]) for key in later)


def test_arrays_have_the_shapes_that_network_and_losses_expect():
    [batch] = first(stream(config(batch_size=2)), 1)
    assert batch["raw"].shape == (2, 1, 6, 20, 20)
    assert batch["raw"].dtype == np.float32
    assert batch["affinities/target"].shape == batch["affinities/mask"].shape == (2, 4, 4, 16, 16)
    assert labels_of(batch).shape == (2, 4, 16, 16)
    assert not np.array_equal(batch["raw"][0], batch["raw"][1])


@pytest.mark.parametrize("voxel_size", [(10, 10, 10), (40, 4.6, 4.6)])
def test_raw_labels_and_targets_stay_aligned_through_all_augmentation(voxel_size):
    setup = config(voxel_size, STILL | {"elastic": 1.0, "jitter_nm": [0, 0, 0], "scale": 0})
    straight = config(voxel_size, STILL | {"elastic": 0.0})
    for batch in first(stream(straight), 6):
        raw = np.rint((batch["raw"][0, 0] + 1) / 0.01)[1:-1, 2:-2, 2:-2]
        np.testing.assert_array_equal(raw, labels_of(batch)[0] % 251)
    for batch in first(stream(straight), 3) + first(stream(setup), 6):
        target, mask = batch["affinities/target"][0], batch["affinities/mask"][0]
        neighborhood = setup.heads["affinities"].neighborhood
        inside = affinities(labels_of(batch)[0], neighborhood)
        known = inside.mask.astype(bool)
        np.testing.assert_array_equal(target[known], inside.values[known])
        assert mask.all(), "partners beyond the sample are known too"


def test_elastic_deformation_bends_raw_and_labels_alike():
    setup = config(augment=STILL | {"elastic": 1.0, "jitter_nm": [10, 20, 20]})
    for batch in first(stream(setup), 5):
        raw = np.rint((batch["raw"][0, 0] + 1) / 0.01)[1:-1, 2:-2, 2:-2]
        # Linear interpolation mixes values at borders of labels only.
        assert np.mean(raw == labels_of(batch)[0] % 251) > 0.35


def test_axes_of_different_voxel_size_are_never_exchanged():
    z = np.indices(SHAPE)[0]
    sections = stripes((z + 1).astype(np.uint64))
    for batch in first(stream(config((40, 4, 4)), sections), 10):
        per_section = [np.unique(section) for section in labels_of(batch)[0]]
        assert all(len(labels) <= 2 for labels in per_section)
        assert len(np.unique(labels_of(batch)[0])) >= 3


def test_axes_of_equal_voxel_size_are_exchanged():
    z = np.indices(SHAPE)[0]
    sections = stripes((z + 1).astype(np.uint64))
    still = config(augment={"elastic": 0.0})
    seen = {
        next(axis for axis in range(3) if np.diff(labels_of(batch)[0].astype(int), axis=axis).any())
        for batch in first(stream(still, sections), 20)
    }
    assert seen == {0, 1, 2}


def test_unlabelled_samples_are_drawn_again():
    labels = np.zeros(SHAPE, np.uint64)
    labels[:, :24, :24] = 1
    for batch in first(stream(config(min_labelled=0.9), stripes(labels)), 5):
        assert (labels_of(batch) != 0).mean() >= 0.9


def test_pairs_with_an_unknown_label_are_masked():
    labels = stripes().labels["labels"].copy()
    labels[:, ::3] = 0
    setup = config(min_labelled=0.3, augment={"elastic": 0.0})
    for batch in first(stream(setup, stripes(labels)), 3):
        unknown = labels_of(batch)[0] == 0
        assert unknown.any()
        assert not batch["affinities/mask"][0][:, unknown].any()


def test_a_source_without_labels_is_an_error_and_no_endless_search():
    empty = stripes(np.zeros(SHAPE, np.uint64))
    with pytest.raises(ConfigError, match="labelled in less than 50%"):
        first(stream(config(augment={"elastic": 0.0}), empty), 1)


def test_sources_are_drawn_by_their_weights():
    one = stripes(np.full(SHAPE, 1, np.uint64))
    two = stripes(np.full(SHAPE, 2, np.uint64))._replace(weight=3.0)
    batches = first(stream(config(augment={"elastic": 0.0}), one, two), 40)
    share = np.mean([labels_of(batch).max() == 2 for batch in batches])
    assert 0.55 < share < 0.95


def test_only_the_box_of_a_source_is_used():
    data = stripes(np.where(np.indices(SHAPE)[0] < 12, 1, 2).astype(np.uint64))
    half = data._replace(begin=(0, 2, 1), end=(12, 64, 63))
    small = config((40, 10, 10), {"elastic": 0.0})
    assert all((labels_of(batch) == 1).all() for batch in first(stream(small, half), 8))


def test_the_largest_read_covers_rotation_scale_and_displacement():
    augment = config(augment={"jitter_nm": [0, 10, 10], "scale": 0.2}).training.augment
    assert largest_read((10, 30, 40), (40, 10, 10), augment) == (12, 79, 79)


def test_lengths_finer_than_a_tenth_of_a_nm_are_refused():
    assert tuple(world((50, 4.6, 4.6))) == (500, 46, 46)
    with pytest.raises(GeometryError, match=r"Set `voxel_size` of the setup to \(50\.0, 5\.2, 4\.0\)"):
        world((50, 5.24, 4))
    with pytest.raises(GeometryError, match="Resample the data"):  # 1.4 % away from any
        world((50, 3.45, 4))


def test_an_error_while_preparing_a_batch_is_raised_where_it_is_used():
    def make(index):
        if index == 2:
            raise OSError("disk gone")
        return index

    batches = prefetch(make, 0, 5)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


def test_preparing_ends_when_the_reader_stops():
    made = []
    batches = prefetch(lambda index: made.append(index) or index, 0, 10**9)
    assert next(batches) == 0
    batches.close()
    assert len(made) <= 5


def test_sixteen_bits_several_volumes_and_masks_stay_aligned(tmp_path):
    """Labels begin elsewhere, in another format; every value of raw tells all the others."""
    shape, size = (20, 44, 44), (40.0, 4.6, 4.6)
    label = 1 + np.arange(np.prod(shape), dtype="u8").reshape(shape)
    begin = (3, 4, 2)
    inner = label[tuple(slice(n, None) for n in begin)]
    raw, offset = (label * 3 % 65521).astype("u2"), (400.0, 46.0, 9.2)
    corner = tuple(o + n * v for o, n, v in zip(offset, begin, size, strict=True))
    for name, values, format, place in (
        ("raw", raw, "zarr3", offset), ("labels", inner.astype("i8"), "n5", corner),
        ("mito", (inner % 5).astype("u4"), "precomputed", corner),
        ("tissue", raw // 2 % 2, "zarr", offset),
    ):
        volume = Volume.create(
            str(tmp_path / name), shape=values.shape, dtype=values.dtype, frame=Frame(size, place),
            chunk_shape=(8, 16, 16), format=format,
        )
        volume.write(volume.box, values)
    source = {
        "raw": str(tmp_path / "raw"), "masks": {"tissue": str(tmp_path / "tissue")},
        "labels": {name: str(tmp_path / name) for name in ("labels", "mito")},
    }
    values = tiny_config() | {"voxel_size": size, "normalization": {"scale": 2 / 65535, "shift": -1}}
    wanted = {"foreground": [{"label": "mito", "fraction": 0.1}], "masked": {"tissue": 0.1}}
    values["training"] |= {"sources": [source], "sampling": wanted, "output_shape": [4, 12, 12]}
    values["training"]["augment"] = {"control_point_nm": [400, 46, 46], "jitter_nm": [0, 0, 0], **STILL}
    for elastic in (0.0, 1.0):
        values["training"]["augment"] |= {"elastic": elastic, "scale": 0}
        setup = SetupConfig.from_dict(values)
        made = BatchStream(setup, open_sources(setup.training.sources, setup), (1, 2, 2))
        for batch in first(made, 4):
            [sample] = batch.samples
            labels = sample.truth.labels["labels"]
            assert labels.dtype == np.uint64 and (labels > 0).all()
            np.testing.assert_array_equal(sample.truth.labels["mito"], labels % 5)
            np.testing.assert_array_equal(sample.truth.masks["tissue"], labels * 3 % 65521 // 2 % 2)
            if not elastic:
                seen = np.rint((sample.raw[1:-1, 2:-2, 2:-2] + 1) * 65535 / 2)
                np.testing.assert_array_equal(seen, labels * 3 % 65521)


def test_a_source_that_lacks_a_volume_is_refused_and_names_what_it_has():
    wanted = {"foreground": [{"label": "mito", "fraction": 0.1}]}
    with pytest.raises(ConfigError, match=r"stripes has the labels \['labels'\].* need \['mito'\]"):
        stream(config(sampling=wanted))
    with pytest.raises(ConfigError, match=r"stripes has the masks \[\].* need \['tissue'\]"):
        stream(config(sampling={"masked": {"tissue": 0.5}}))
    check_volumes([stripes()], config(sampling=wanted), "validation")  # where nothing is sampled
    bare = stripes()._replace(labels={"mito": stripes().labels["labels"]})
    with pytest.raises(ConfigError, match=r"training\.validation: .*\['mito'\].*need \['labels'\]"):
        check_volumes([bare], config(), "validation")


def test_old_keys_of_the_choice_of_samples_mean_the_same_as_the_new_ones():
    old = config(min_labelled=0.3, reject_probability=[[0, 1.0], [8, 0.5]])
    new = config(sampling={"labelled": 0.3, "sites": [[0, 1.0], [8, 0.5]]})
    assert old.training.used_sampling == new.training.used_sampling
    with pytest.raises(ConfigError, match="`sampling` stands for"):
        config(min_labelled=0.3, sampling={})


def test_descriptors_are_those_of_the_labels_around_the_sample():
    # Whether a window ends in the sample or beyond it must not show.
    values = tiny_config()
    values["heads"]["lsd"] = {"kind": "lsd", "sigma_nm": 20}
    values["training"]["augment"] |= STILL | {"elastic": 0.0}
    small = SetupConfig.from_dict(values)
    large = small.model_copy(
        update={"training": small.training.model_copy(update={"output_shape": (12, 24, 24)})}
    )
    margin = (4, 4, 4)
    for seed in range(3):
        [batch] = first(stream(large), 1, begin=seed)
        inner = shape_descriptors(
            labels_of(batch)[0], sigma_nm=20, voxel_size=(10, 10, 10), margin=margin
        )
        box = (slice(None), *(slice(m, -m) for m in margin))
        np.testing.assert_allclose(batch["lsd/target"][0][box], inner.values, atol=1e-6)
        np.testing.assert_array_equal(batch["lsd/mask"][0][box[1:]], inner.mask)
        assert batch["lsd/target"].shape == (1, 10, 12, 24, 24)
    [batch] = first(stream(small), 1)
    assert batch["lsd/target"].dtype == np.float32
    assert batch["lsd/mask"].shape == (1, 4, 16, 16)


def test_gamma_bends_intensities_and_keeps_black_and_white():
    bent = config(augment=STILL | {"elastic": 0.0, "gamma": 0.5})
    straight = config(augment=STILL | {"elastic": 0.0})
    for with_gamma, without in zip(first(stream(bent), 4), first(stream(straight), 4), strict=True):
        before = (without["raw"] + 1) / 0.01 / 255
        after = (with_gamma["raw"] + 1) / 0.01 / 255
        middle = (before > 0.02) & (before < 0.98)
        powers = np.log(after[middle]) / np.log(before[middle])
        assert np.ptp(powers) < 1e-3
        assert np.exp(-0.5) <= powers[0] <= np.exp(0.5)
        assert abs(powers[0] - 1) > 1e-4
