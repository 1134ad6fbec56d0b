"""Frozen parameters."""

import pytest
from torch import nn

from em_blocks.errors import ConfigError
from em_blocks.nets.freezing import freeze


def network():
    made = nn.Module()
    made.down = nn.ModuleList([nn.Conv3d(1, 2, 1), nn.Conv3d(2, 3, 1)])
    made.down10 = nn.Conv3d(3, 3, 1)
    made.heads = nn.ModuleDict({"mito": nn.Conv3d(3, 1, 1)})
    return made


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ([], []),
        (["down"], ["down.0.weight", "down.0.bias", "down.1.weight", "down.1.bias"]),
        (["down.0"], ["down.0.weight", "down.0.bias"]),
        (["*.bias"], ["down.0.bias", "down.1.bias", "down10.bias", "heads.mito.bias"]),
        (["down.?.weight", "heads.mito.bias"], ["down.0.weight", "down.1.weight", "heads.mito.bias"]),
    ],
)
def test_patterns_name_modules_and_parameters(patterns, frozen):
    made = network()
    assert freeze(made, patterns) == frozen
    assert [name for name, it in made.named_parameters() if not it.requires_grad] == frozen


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["down", "up"], r"'up', which names no parameter.*There are down.0, down.1, down10.weight"),
        (["dow"], r"'dow', which names no parameter"),
        (["*"], r"names all 8 parameters.*nothing would be trained"),
    ],
)
def test_what_names_nothing_or_everything_is_refused(patterns, message):
    made = network()
    with pytest.raises(ConfigError, match=message):
        freeze(made, patterns)
    assert all(it.requires_grad for it in made.parameters())
