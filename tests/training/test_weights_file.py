"""Equal weights are equal bytes."""

import pytest
import torch
from safetensors import safe_open
from torch import nn

from em_blocks.training.weights_file import save_weights

ABOUT = {"setup": 'µ "net"\n', "iteration": "4", "seed": "9", "channels": '{"a": ["b/c", "\\u2713"]}'}


def save(path):
    torch.manual_seed(2)
    save_weights(nn.Sequential(nn.Linear(3, 2), nn.Conv3d(2, 2, 1)), path, ABOUT)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    for n in range(12):  # the library alone would choose an order each time
        save(tmp_path / str(n))
    assert len({(tmp_path / str(n)).read_bytes() for n in range(12)}) == 1


def test_the_library_reads_what_was_saved(tmp_path):
    save(tmp_path / "w")
    torch.manual_seed(2)
    expected = nn.Sequential(nn.Linear(3, 2), nn.Conv3d(2, 2, 1)).state_dict()
    with safe_open(tmp_path / "w", "pt") as file:
        assert file.metadata() == ABOUT
        assert set(file.keys()) == set(expected)
        for name, values in expected.items():
            assert torch.equal(file.get_tensor(name), values)


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_the_memory_format_is_not_part_of_the_weights(tmp_path, layout):
    torch.manual_seed(2)
    network = nn.Conv3d(2, 4, 3)
    save_weights(network, tmp_path / "a", {})
    save_weights(network.to(memory_format=layout), tmp_path / "b", {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
