"""Embeddings are stored as they are, and never averaged over mirrored raw."""

from types import SimpleNamespace

import pytest

from em_blocks.errors import ConfigError
from em_blocks.models.head import HEADS
from em_blocks.tasks.prediction.checks import check_symmetries


def task(augmentation, *outputs):
    heads = {kind: HEADS.get(kind).from_dict({"kind": kind}) for kind in ("foreground", "embedding")}
    return SimpleNamespace(
        test_time_augmentation=augmentation, heads=heads,
        outputs_by_head=lambda: dict.fromkeys(outputs or heads),
    )


def test_means_of_embeddings_are_refused():
    with pytest.raises(ConfigError, match=r"those of \['embedding'\] have no mean"):
        check_symmetries(task("mirrors"), raw=None)
    check_symmetries(task("mirrors", "foreground"), raw=None)
    check_symmetries(task("none"), raw=None)
