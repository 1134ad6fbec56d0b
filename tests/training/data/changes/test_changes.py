"""Every augmentation for itself: what it changes, and that raw, labels and sites stay together."""

import itertools

import gunpowder as gp
import numpy as np
import pytest

from em_blocks.kernels.transforms.sections import SectionMoves
from em_blocks.models.config import AugmentConfig, SetupConfig
from em_blocks.training.data.augment import largest_read
from em_blocks.training.data.changes.sections import MoveSections
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.loading.stream import BatchStream
from tiny_setup import tiny_config

SHAPE = (40, 96, 96)
SIZE = (40.0, 8.0, 8.0)
NONE = {
    "elastic": 0, "scale": 0, "contrast": 0, "brightness": 0, "noise": 0, "blur": 0,
    "control_point_nm": [400, 200, 200], "jitter_nm": [0, 0, 0],
}


def samples(n=12, raw=None, labels=None, **augment):
    """Samples of a volume in which raw is a function of the label, of all mirrors."""
    values = tiny_config()
    values["voxel_size"] = list(SIZE)
    values["training"]["augment"] = NONE | augment
    if labels is None:
        labels = np.random.default_rng(0).integers(1, 200, SHAPE)
    raw = labels if raw is None else raw
    data = TrainingData(
        "noise", raw.astype(np.uint8), {"labels": labels.astype(np.uint64)}, (0, 0, 0), SHAPE, 1.0
    )
    stream = BatchStream(SetupConfig.from_dict(values), [data], (0, 0, 0))
    return [batch.samples[0] for batch in itertools.islice(stream.batches(0, n), n)]


def raw_of(sample):
    """Stored intensities, whatever `normalization` makes of them."""
    return np.rint((sample.raw + 1) / 0.01)


def rows_of_sections():
    """Labels that tell the section, and one that tells the column."""
    z, _, x = np.indices(SHAPE)
    return z + 1, x + 1


@pytest.mark.parametrize("augment", [
    {"misaligned": 1.0}, {"removed_sections": 1.0}, {"misaligned": 1.0, "removed_sections": 1.0},
], ids=str)
def test_raw_and_labels_stay_together_where_sections_move(augment):
    for sample in samples(**augment):
        np.testing.assert_array_equal(raw_of(sample), sample.truth.labels["labels"])


def test_removed_sections_leave_a_jump_of_one_or_two():
    sections, _ = rows_of_sections()
    found = set()
    for sample in samples(20, labels=sections, removed_sections=1.0):
        numbers = sample.truth.labels["labels"][:, 0, 0].astype(int)
        steps = np.abs(np.diff(numbers))
        assert sorted(steps)[:-1] == [1] * (len(steps) - 1)
        found.add(int(steps.max()))
    assert found == {1, 2, 3}  # 1: lost between two sections of the context
    for sample in samples(4, labels=sections):
        assert (np.abs(np.diff(sample.truth.labels["labels"][:, 0, 0].astype(int))) == 1).all()


def test_misalignment_shifts_sections_by_whole_voxels_up_to_the_largest():
    _, columns = rows_of_sections()
    jumps = []
    for sample in samples(60, labels=columns, misaligned=1.0, misalignment_nm=33):
        labels = sample.truth.labels["labels"].astype(int)
        if np.ptp(labels[0, 0]) == 0:  # x and y are exchanged
            labels = labels.swapaxes(1, 2)
        assert (np.abs(np.diff(labels, axis=2)) == 1).all(), "no section is torn"
        jumps += np.diff(labels[:, 0, 0]).tolist()
    assert max(jumps) == 4 and min(jumps) == -4


def test_the_share_of_misaligned_samples_is_that_of_the_config():
    _, columns = rows_of_sections()
    shares = []
    for share in (0.0, 0.5):
        found = samples(60, labels=columns, misaligned=share)
        shares.append(np.mean([
            np.ptp(sample.truth.labels["labels"], axis=0).any() for sample in found
        ]))
    assert shares[0] == 0 and 0.2 < shares[1] < 0.6


def test_missing_parts_are_the_mean_of_their_section_and_no_label_changes():
    raw = np.random.default_rng(1).integers(40, 200, SHAPE)
    changed = []
    for sample in samples(20, raw=raw, labels=raw, missing_parts=0.5, missing_part_nm=40):
        wrong = raw_of(sample) != sample.truth.labels["labels"]
        for z in np.flatnonzero(wrong.any(axis=(1, 2))):
            values = sample.raw[z][wrong[z]]
            assert np.ptp(values) < 1e-5
            assert values[0] == pytest.approx(raw[0].mean() * 0.01 - 1, abs=0.2)
        changed.append(wrong.any(axis=(1, 2)).mean())
    assert 0.2 < np.mean(changed) < 0.6


def test_grey_values_change_from_section_to_section_in_the_share_of_samples():
    raw = np.full(SHAPE, 100)
    options = {"brightness": 0.15, "contrast": 0.1, "gamma": 0.2}
    spread = [
        sample.raw.mean(axis=(1, 2)).std()
        for sample in samples(40, raw=raw, labels=raw, grey_of_sections=0.5, **options)
    ]
    assert 0.25 < np.mean(np.array(spread) > 1e-4) < 0.75
    even = samples(5, raw=raw, labels=raw, **options)
    assert max(sample.raw.mean(axis=(1, 2)).std() for sample in even) < 1e-5


def stripe_widths(sample):
    """Widths of whole stripes along y or x, whichever crosses them; None if they lie askew."""
    section = sample.truth.labels["labels"][0].astype(int)
    lines = [line for line in (section[0], section[:, 0]) if np.ptp(line)]
    if len(lines) > 1:
        return None
    return np.diff(np.flatnonzero(np.diff(lines[0])))


def test_rotation_and_rescaling_are_switched_on_for_themselves():
    columns = 1 + (np.indices(SHAPE)[2] // 4) % 2
    still = {"elastic": 1.0, "rotated": 0.0, "scaled": 0.0, "scale": 0.5}
    for sample in samples(6, labels=columns, **still):
        assert (stripe_widths(sample) == 4).all()
    widths = [stripe_widths(sample) for sample in samples(10, labels=columns, **still | {"scaled": 1.0})]
    assert {int(w) for found in widths for w in found} > {3, 4, 5}
    turned = samples(10, labels=columns, **still | {"rotated": 1.0})
    assert sum(stripe_widths(sample) is None for sample in turned) > 6


def test_configs_that_do_not_ask_for_them_know_nothing_of_the_new_changes():
    config = AugmentConfig(control_point_nm=[1, 1, 1], jitter_nm=[0, 0, 0])
    assert config.model_dump().keys() == {
        "control_point_nm", "jitter_nm", "elastic", "scale", "gamma", "contrast", "brightness",
        "noise", "blur", "missing_sections", "faint_sections",
    }


def test_as_much_more_is_read_as_sections_can_move():
    def read(**augment):
        return largest_read((6, 20, 20), SIZE, AugmentConfig(**NONE | augment))

    assert read() == (6, 20, 20)
    assert read(removed_sections=0.1) == (8, 20, 20)
    assert read(misaligned=0.1, misalignment_nm=33) == (6, 28, 28)


def test_sites_lie_in_the_same_tissue_after_sections_have_moved():
    step, begin = gp.Coordinate(400, 80, 80), gp.Coordinate(800, 160, 0)
    node = MoveSections(1, 1, (3, 3))
    node.step, node.total = step, gp.Roi(begin, gp.Coordinate(6, 20, 20) * step)
    source = np.array([0, 1, 2, 5, 6, 7])
    shift = np.array([[0, 0], [0, 0], [2, -3], [0, 0], [0, 0], [0, 0]])
    node.made = SectionMoves(source, shift)
    ids = np.arange(8 * 22 * 23).reshape(8, 22, 23)  # from y - 0 to + 2, from x - 3 on
    moved = node._moved(ids, node.total)
    rng = np.random.default_rng(0)
    places = rng.integers((0, 4, 4), (8, 16, 16), (40, 3))
    nodes = [gp.Node(n, (at + 0.4) * np.array(step) + np.array(begin)) for n, at in enumerate(places)]
    around = gp.Roi(begin - gp.Coordinate(0, 0, 3) * step, gp.Coordinate(8, 22, 23) * step)
    spec = gp.GraphSpec(roi=around, directed=False)
    found = node._moved_sites(gp.Graph(nodes, [], spec), node.total)
    kept = lost = 0
    for site in found.nodes:
        z, y, x = places[site.id]
        at = tuple(np.floor((site.location - np.array(begin)) / np.array(step)).astype(int))
        if z in source:
            assert moved[at] == ids[z, y, x + 3]
            kept += 1
        else:
            assert at[0] == 2
            lost += 1
    assert kept + lost == 40 and kept > 20 and lost > 5
