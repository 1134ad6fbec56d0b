"""docs/instances.md: its configs are some."""

import json
import re
from pathlib import Path

import pytest

from em_blocks.evaluation.instance_search.config import SearchInstances
from em_blocks.tasks import task_class

PAGE = (Path(__file__).parents[3] / "docs/instances.md").read_text()
CONFIGS = [config for config in map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.S))
           if "kind" in config]
SEARCHES = [config for config in CONFIGS if config["kind"] == "search_instances"]
JOBS = [config for config in CONFIGS if config not in SEARCHES]


@pytest.mark.parametrize("config", JOBS, ids=lambda config: config["run"])
def test_a_config_of_the_page_is_one(config):
    assert task_class(config["kind"]).from_dict(config).run


def test_the_search_of_the_page_is_one():
    (config,) = SEARCHES
    segment = next(job for job in JOBS if job["kind"] == "segment_instances")
    assert SearchInstances.from_dict(config | {"segment": segment}).choices()
