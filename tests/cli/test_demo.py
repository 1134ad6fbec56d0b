"""The demo, on a smaller volume: from nothing to segments and a picture, and again."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.cli.demo import main as demo
from em_blocks.cli.main import main
from em_blocks.tasks.segmentation.segment import Segment

SCORES = {"objects", "voi_split", "voi_merge", "arand"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def invoke(folder):
    """Function that runs the command on a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SHAPE", (16, 128, 256))
        yield lambda: CliRunner().invoke(demo.main, [str(folder)])


@pytest.fixture(scope="module")
def first(invoke):
    """What it printed the first time."""
    result = invoke()
    assert result.exit_code == 0, result.output
    return result.output


def precisions(output):
    lines = [line for line in output.splitlines() if "average precision" in line]
    return [float(line.split("average precision ")[1].split(",")[0]) for line in lines]


def scores(output):
    """The table of scores: (fragments, segments) by name."""
    rows = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    return {
        row[1].split()[0]: tuple(float(cell.replace(",", "")) for cell in row[2:4])
        for row in rows if len(row) == 5 and row[1].split()[0] in SCORES
    }


def blocks(folder):
    """Counts of the last step."""
    return json.loads((folder / "summary.json").read_text())["blocks"]


def test_the_demo_goes_from_nothing_to_segments(first, folder):
    assert len(precisions(first)) == 6
    assert min(precisions(first)) > 0.9
    found = scores(first)
    assert found.keys() == SCORES
    for name in ("voi_split", "arand"):
        fragments, segments = found[name]
        assert segments < fragments / 2
    assert sum(found[name][1] for name in ("voi_split", "voi_merge")) < 1
    with Image.open(folder / "panel.png") as picture:
        assert picture.width > 3 * 384 and picture.height > 2 * 192


def test_its_result_can_be_scored_and_audited_by_the_verbs_it_names(first, folder):
    scored = call("evaluate", "segmentation", "--truth", folder / "volume.zarr/neurons",
                  "--segmentation", folder / "segmentation.zarr/segments/0.8", "--json")
    for name in ("voi_split", "voi_merge", "arand"):
        assert scored[name] == pytest.approx(scores(first)[name][1], abs=6e-4)
    assert call("audit", folder / "segment.json", "--samples", 3, "--json")["samples"] == 1
    statuses = call("status", folder / "segment.json", "--json")
    assert {status["state"] for status in statuses} == {"done"}


def test_again_it_finds_everything_done(first, invoke, folder):
    again = invoke()
    assert again.exit_code == 0, again.output
    assert precisions(again.output) == precisions(first)
    assert scores(again.output) == scores(first)
    assert "demo: 2 blocks, 2 done before" in again.output
    assert blocks(folder)["skipped"] == 2 and blocks(folder)["computed"] == 0


def call(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_config_that_the_reader_changed_is_kept(tmp_path):
    path = demo.write_config(tmp_path, "predict.json", demo.prediction())
    path.write_text(path.read_text().replace('"num_workers": 2', '"num_workers": 1'))
    demo.write_config(tmp_path, "predict.json", demo.prediction())
    assert json.loads(path.read_text())["num_workers"] == 1


def test_the_configs_of_the_demo_are_relative_to_its_folder(tmp_path):
    config = Segment.from_dict(demo.segmentation(), folder=tmp_path)
    assert config.affinities == str(tmp_path / "predictions.zarr/affinities")
    assert config.thresholds == (0.8,)
