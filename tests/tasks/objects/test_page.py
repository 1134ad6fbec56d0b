"""docs/postprocessing.md: its configs and commands are some."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from em_blocks.cli.main import main
from em_blocks.tasks import task_class

PAGE = (Path(__file__).parents[3] / "docs/postprocessing.md").read_text()
CONFIGS = [config for config in map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.S))
           if "kind" in config]
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["kind"])
def test_a_config_of_the_page_is_one(config):
    assert task_class(config["kind"]).from_dict(config).run


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_page_has_these_options(command):
    verb, context, words = main, click.Context(main), command
    while isinstance(verb, click.Group):
        verb, words = verb.get_command(context, words[0]), words[1:]
        assert verb is not None, command
    known = {option for parameter in verb.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
