"""docs/heads.md: its head works, and its tables name what there is."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from em_blocks.models.head import HEADS, Head
from em_blocks.models.truth import Truth
from em_blocks.nets.losses import LOSSES

PAGE = (Path(__file__).parents[3] / "docs/heads.md").read_text()


def rows(section):
    text = PAGE.partition(section)[2].partition("\n#")[0]
    return re.findall(r"^\| `(\w+)` \| ([^|]*)\|", text, re.MULTILINE)


def test_all_heads_and_losses_are_listed_with_their_parameters():
    assert [name for name, _ in rows("# Heads, losses and scores")] == list(HEADS.builtin)
    listed = {kind: set(re.findall(r"`(\w+)`", parameters)) for kind, parameters in rows("## Losses")}
    assert listed == {kind: LOSSES.get(kind).model_fields.keys() - {"kind"} for kind in LOSSES.builtin}


def test_the_head_of_the_page_learns_scores_and_is_stored(tmp_path):
    module = {"__name__": "a page"}
    exec(PAGE.partition("```python\n")[2].partition("```")[0], module)
    head = module["ForegroundHead"](kind="foreground")
    assert isinstance(head, Head) and head.storage.dtype == "uint8"
    labels = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint64)
    truth = Truth((40.0, 4.6, 4.6), {"labels": labels})
    made = head.targets(truth)
    perfect = made["target"][None].astype(np.float32)
    assert head.scores(perfect, truth) == {"right": 1.0} and head.score_names().keys() == {"right"}
    batch = {name: torch.from_numpy(values)[None] for name, values in made.items()}
    sure = torch.from_numpy(40 * perfect - 20)[None]
    assert float(head.objective(sure, batch, 0)) == pytest.approx(0, abs=1e-6)
    assert float(head.objective(-sure, batch, 0)) > 0.9
