"""What is remarkable in a crop is said, and nothing else."""

import pytest

from em_blocks.kernels.evaluation.edge_shift import EdgeShift
from em_blocks.training.review.shares import ClassShares
from em_blocks.training.review.table import Crop

GOOD = Crop(
    key="sources", name="a", voxel_size=(40.0, 4.6, 4.6), offset_nm=(0.0, 0.0, 0.0),
    begin=(0, 0, 0), shape=(4, 5, 5), dtype="uint8",
    percentiles={0: 3.0, 1: 10.0, 50: 90.0, 99: 200.0, 100: 250.0},
    classes={"mito": ClassShares(10, 80, 10)}, ids={"labels": 0.5},
    edges={"mito": EdgeShift((2, -2), 1.5, 2.0)}, several=0.0, sha256="0",
)


def tails(low, high):
    return GOOD.percentiles | {1: low, 99: high}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"classes": {"mito": ClassShares(100, 0, 0)}}, ["nothing is known of 'mito'"]),
        ({"classes": {"mito": ClassShares(20, 80, 0)}}, ["no voxel is 'mito'"]),
        ({"classes": {"mito": ClassShares(20, 0, 80)}}, ["anything but 'mito'"]),
        ({"ids": {"labels": 0.0}}, ["no voxel of 'labels' has an id"]),
        ({"percentiles": tails(9.0, 9.0)}, ["raw is 9 nearly everywhere"]),
        ({"percentiles": tails(100.0, 125.0)}, ["raw uses 25 of 256 grey values only"]),
        ({"percentiles": tails(100.0, 126.0)}, []),
        ({"percentiles": tails(100.0, 125.0), "dtype": "uint16"}, []),
        ({"edges": {"mito": EdgeShift((0, -3), 1.2, 2.0)}}, ["1.20 times stronger", "(0, -3)"]),
        ({"edges": {"mito": EdgeShift((0, -3), 1.1, 2.0)}}, []),
        ({"several": 0.25}, ["25.00% of the voxels are of several classes"]),
    ],
)
def test_remarks_of_a_crop(changes, said):
    found = list(GOOD._replace(**changes).remarks())
    assert len(found) == bool(said)
    assert all(part in found[0] for part in said)
