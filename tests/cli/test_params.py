"""Values on the command line, and options that are made from models."""

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from em_blocks.cli.evaluation.evaluate import main as evaluate
from em_blocks.cli.params import Numbers, Steps, ThreePositive, options_from
from em_blocks.config import StrictModel

FORM = {"config": None, "overrides": (), "overwrite": False, "adopt": False, "as_json": False,
        "output": None}


class Settings(StrictModel):
    least: int = Field(3, ge=0, le=9, description="Least.")
    share: float | None = Field(None, gt=0, description="Share.")
    ids: tuple[int, ...] = Field((7,), description="Ids.")
    volume: str = Field(description="Volume.")
    certain: bool = Field(False, description="Certain.")


@click.command()
@options_from(Settings, "least", "share", "ids", "volume", "certain")
def command(**values):
    click.echo(repr(values))


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)])


def test_an_option_of_a_field_has_its_default_and_its_bounds():
    assert eval(run().output) == {
        "least": 3, "share": None, "ids": (7,), "volume": None, "certain": False
    }
    given = run("--least", 9, "--share", 0.5, "--ids", 1, "--ids", 2, "--volume", "v", "--certain")
    assert eval(given.output) == {
        "least": 9, "share": 0.5, "ids": (1, 2), "volume": "v", "certain": True
    }
    for wrong in (("--least", 10), ("--least", -1), ("--share", 0), ("--ids", "x")):
        assert run(*wrong).exit_code == 2
    shown = " ".join(run("--help").output.split())
    assert "Ids. May be repeated. [default: 7]" in shown and "[default: 3; 0<=x<=9]" in shown


@pytest.mark.parametrize(("name", "defaults"), [
    ("segmentation", {
        "segmentations": (), "truth": None, "ignore": (0,), "ignore_segmentation": (),
        "border_nm": None, "roi": None, "skeletons": None, "skeleton_unit": "nm",
    }),
    ("connectivity", {
        "neurons": None, "truth": None, "prediction": None, "reach_voxels": None, "reach_nm": None,
        "mode": "all", "min_voxels": 50, "min_overlap": 1, "exclude": (), "truth_partners": None,
        "prediction_partners": None, "contacts": False,
    }),
])
def test_the_options_of_evaluations_are_those_of_their_configs(name, defaults):
    command = evaluate.get_command(click.Context(evaluate), name)
    context = command.make_context(name, [], resilient_parsing=False)
    assert context.params == defaults | FORM
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_evaluations_are_listed_though_they_are_imported_late():
    names = evaluate.list_commands(click.Context(evaluate))
    assert names == [
        "checkpoints", "clefts", "connectivity", "instances", "mask", "segmentation", "synapses"
    ]


@pytest.mark.parametrize("text", ["1,2", "1,2,x", "1,2,3,4", "0,1,1", "-1,1,1", "1,nan,1", "1,inf,1"])
def test_three_positive_numbers_are_nothing_else(text):
    with pytest.raises(click.BadParameter, match=r"not of the form z,y,x, three positive numbers\."):
        ThreePositive(float).convert(text, None, None)


def test_numbers_with_commas_are_a_tuple():
    assert ThreePositive(int).convert("1,20,3", None, None) == (1, 20, 3)
    assert Numbers(float, "a,b").convert("0,-5.5", None, None) == (0.0, -5.5)
    assert Numbers(int, "z,y,x", count=3, least=0).convert("0,0,14", None, None) == (0, 0, 14)
    with pytest.raises(click.BadParameter, match=r"'0,1.5,1' is not of the form z,y,x\."):
        Numbers(int, "z,y,x", count=3).convert("0,1.5,1", None, None)


@pytest.mark.parametrize(("text", "values"), [
    ("0.1:0.9:0.2", (0.1, 0.3, 0.5, 0.7, 0.9)), ("0.3:0.3:1", (0.3,)), ("0.9,0.1,0.9", (0.1, 0.9)),
    ("1:2:0.4", (1.0, 1.4, 1.8)),
])
def test_steps_are_a_list_or_a_range_with_both_ends(text, values):
    assert Steps(float, "a list").convert(text, None, None) == values


def test_steps_of_whole_numbers_are_whole():
    found = Steps(int, "a list", least=1).convert("1000:3000:1000", None, None)
    assert found == (1000, 2000, 3000) and all(type(n) is int for n in found)


@pytest.mark.parametrize("text", ["3:1:1", "1:3:0", "1:3:-1", "1:3", "a:b:c", "0:2:1", ""])
def test_what_are_no_steps_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not of the form a list"):
        Steps(int, "a list", least=1).convert(text, None, None)
