"""docs/data_preparation.md: every config and every conversion of the page is one."""

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from em_blocks.tasks import task_class
from em_blocks.tasks.preparation.convert import AnyConversion

PAGE = (Path(__file__).parents[3] / "docs/data_preparation.md").read_text()
CONFIGS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
ROWS = re.findall(r'^\| `(\{"kind": .*?\})` \|', PAGE, re.MULTILINE)
# Those of crop and pad name their keys without values.
CONVERSIONS = [json.loads(row) for row in ROWS if '"shape"}' not in row and '"value"}' not in row]


def test_each_preparation_has_an_example():
    assert {c["kind"] for c in CONFIGS} == {"equalize", "tissue_mask", "metric_mask", "convert"}
    assert {c["kind"] for c in CONVERSIONS} == {
        "invert", "dtype", "relabel", "rgb_to_ids", "rgb_to_grey",
    }
    assert len(ROWS) == len(CONVERSIONS) + 2


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["kind"])
def test_a_config_of_the_page_loads(config):
    assert task_class(config["kind"]).from_dict(config).output.startswith("/")


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda c: c["kind"])
def test_a_conversion_of_the_page_is_one(conversion):
    assert TypeAdapter(AnyConversion).validate_python(conversion).kind == conversion["kind"]
