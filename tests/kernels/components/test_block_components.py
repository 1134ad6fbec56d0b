"""Parts found block by block are those of the whole volume, and the rules for them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from em_blocks.kernels.components.block_components import find_borders, find_parts
from em_blocks.kernels.components.join_components import join_parts, part_ids

shapes = st.tuples(*[st.integers(1, 7)] * 3)
labels = shapes.flatmap(lambda s: arrays(np.uint16, s, elements=st.sampled_from([0, 0, 0, 3, 9])))
blocks = st.tuples(*[st.integers(1, 4)] * 3)


def slow_parts(labels, connectivity=26):
    """(id, size, first voxel) of every part, one id after the other."""
    found, structure = [], ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3)
    for i in np.unique(labels[labels > 0]):
        numbers, n = ndimage.label(labels == i, structure=structure)
        flat = numbers.ravel()
        found += [(int(i), int((flat == k).sum()), int(np.argmax(flat == k))) for k in range(1, n + 1)]
    return sorted(found, key=lambda part: part[2])


def joined_over_blocks(labels, block_shape, connectivity=26):
    """What the tasks do, with dicts for tables."""
    grown, shape = np.pad(labels, 1), labels.shape
    strides = (shape[1] * shape[2], shape[2], 1)
    rows, faces, links = [], {}, []
    for corner in itertools.product(*(range(0, n, b) for n, b in zip(shape, block_shape, strict=True))):
        piece = labels[tuple(slice(c, c + b) for c, b in zip(corner, block_shape, strict=True))]
        parts = find_parts(piece, connectivity)
        around = grown[tuple(slice(c, c + n + 2) for c, n in zip(corner, piece.shape, strict=True))]
        index = [(c - 1 + np.arange(n + 2)) * s
                 for c, n, s in zip(corner, piece.shape, strides, strict=True)]
        borders = find_borders(around, parts.numbers, index, connectivity)
        faces |= {int(voxel): len(rows) + part - 1 for part, voxel in borders.faces}
        links += [(len(rows) + part - 1, int(voxel)) for part, voxel in borders.links]
        voxels = np.unravel_index(parts.first, piece.shape)
        first = sum((c + v) * s for c, v, s in zip(corner, voxels, strides, strict=True))
        rows += zip(parts.ids.tolist(), parts.sizes.tolist(), first.tolist(), strict=True)
    edges = np.array([(row, faces[voxel]) for row, voxel in links], np.int64).reshape(-1, 2)
    ids, sizes, first = np.array(rows, np.int64).reshape(-1, 3).T
    return join_parts(ids, sizes, first, edges)


@given(labels=labels)
def test_the_parts_of_a_block_agree_with_one_labelling_per_id(labels):
    parts = find_parts(labels)
    found = list(zip(parts.ids.tolist(), parts.sizes.tolist(), parts.first.tolist(), strict=True))
    assert found == slow_parts(labels)
    assert (parts.numbers > 0).sum() == parts.sizes.sum() == (labels > 0).sum()
    for number in range(1, len(found) + 1):
        assert (labels[parts.numbers == number] == parts.ids[number - 1]).all()


@given(labels=labels, block_shape=blocks, connectivity=st.sampled_from([6, 26]))
def test_parts_joined_over_any_blocks_are_those_of_the_volume(labels, block_shape, connectivity):
    joined = joined_over_blocks(labels, block_shape, connectivity)
    rows = zip(joined.ids.tolist(), joined.sizes.tolist(), joined.first.tolist(), strict=True)
    assert sorted(rows, key=lambda part: part[2]) == slow_parts(labels, connectivity)


@pytest.mark.parametrize("step", [s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)])
def test_two_voxels_meet_across_faces_edges_and_corners(step):
    labels = np.zeros((6, 6, 6), np.uint32)
    here = tuple(2 if s == 1 else 3 for s in step)
    labels[here] = labels[tuple(h + s for h, s in zip(here, step, strict=True))] = 7
    assert joined_over_blocks(labels, (3, 3, 3)).sizes.tolist() == [2]
    by_faces = joined_over_blocks(labels, (3, 3, 3), 6).sizes.tolist()
    assert by_faces == ([2] if np.abs(step).sum() == 1 else [1, 1])


def test_a_long_way_round_through_other_blocks_joins():
    """Two arms that meet only in the last block are one part everywhere."""
    labels = np.zeros((1, 5, 12), np.uint8)
    labels[0, 0], labels[0, 4], labels[0, :, 11] = 1, 1, 1
    assert joined_over_blocks(labels, (1, 2, 3)).sizes.tolist() == [27]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_every_dtype_of_labels_has_parts(dtype):
    labels = np.zeros((3, 4, 5), dtype)
    labels[0], labels[2] = 1, np.iinfo(dtype).max
    parts = find_parts(labels)
    assert parts.ids.tolist() == [1, np.iinfo(dtype).max] and parts.sizes.tolist() == [20, 20]


# -- which parts stay ----------------------------------------------------------------------


def kept(parts, **options):
    ids, sizes, first = np.array(parts, np.int64).reshape(-1, 3).T
    return part_ids(ids, sizes, first, **{"fraction": 0.1, "min_size": 100, **options}).tolist()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], []),
        ([(5, 100, 0)], [5]),
        ([(5, 99, 0)], [0]),
        ([(5, 60, 0), (5, 60, 9)], [5, 0]),  # the id is large enough, its second part is not
        ([(5, 200, 0), (5, 900, 9)], [6, 5]),
        ([(5, 100, 0), (5, 900, 9)], [6, 5]),  # exactly a tenth
        ([(5, 100, 0), (5, 901, 9)], [0, 5]),
        ([(5, 300, 8), (5, 300, 2)], [6, 5]),  # of equal ones the first voxel decides
        ([(2, 300, 8), (9, 500, 0), (2, 200, 5), (9, 400, 1)], [2, 9, 10, 11]),
        ([(7, 300, 8), (7, 300, 2), (7, 300, 5)], [9, 7, 8]),
    ],
)
def test_the_largest_part_keeps_the_id(parts, expected):
    assert kept(parts) == expected


def test_ids_end_at_two_to_the_63():
    top = 2**63 - 1
    assert kept([(top - 1, 300, 0), (top - 1, 300, 1)]) == [top - 1, top]
    with pytest.raises(OverflowError, match="1 new ids"):
        kept([(top, 300, 0), (top, 300, 1)])


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 300)), max_size=20), st.floats(0, 1),
    st.integers(1, 300), st.randoms(use_true_random=False),
)
def test_no_id_has_two_parts_and_the_order_of_rows_does_not_matter(sizes, fraction, min_size, random):
    parts = [(i, n, place) for place, (i, n) in enumerate(sizes)]
    result = kept(parts, fraction=fraction, min_size=min_size)
    stay = [new for new in result if new]
    assert len(set(stay)) == len(stay)
    for (i, _, _), new in zip(parts, result, strict=True):
        assert new in (0, i) or new > max(i for i, _, _ in parts)
    shuffled = random.sample(range(len(parts)), len(parts))
    again = kept([parts[k] for k in shuffled], fraction=fraction, min_size=min_size)
    assert [result[k] for k in shuffled] == again
