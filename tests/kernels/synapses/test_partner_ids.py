import numpy as np

from em_blocks.kernels.synapses.partner_ids import ids_of_partners
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses

SIZE, OFFSET = (40, 4.6, 4.6), (400, 46, 9.2)


def test_both_sites_get_the_label_of_their_voxel_and_none_outside():
    labels = np.arange(1, 4 * 5 * 6 + 1).reshape(4, 5, 6)
    voxels = np.array([[1, 2, 3], [3, 4, 5], [0, 0, 0], [4, 0, 0], [0, -1, 0]])
    pre = np.array(OFFSET) + (voxels + 0.5) * SIZE
    post = np.array(OFFSET) + (np.array([0, 0, 1]) + 0.5) * SIZE * np.ones((5, 1))
    found = ids_of_partners(
        labels, Synapses(id=np.arange(5), pre=pre, post=post), voxel_size=SIZE, offset=OFFSET
    )
    assert found[:, 0].tolist() == [labels[1, 2, 3], labels[3, 4, 5], 1, UNMAPPED, UNMAPPED]
    assert found[:, 1].tolist() == [2] * 5
