"""The demo, on a smaller volume: from nothing to a picture, and again."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.pipelines import demo


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Function that runs the command on a folder of this test."""
    monkeypatch.setattr(demo, "SHAPE", (16, 128, 256))
    return lambda: CliRunner().invoke(demo.main, [str(tmp_path / "demo")])


def precisions(output):
    lines = [line for line in output.splitlines() if "average precision" in line]
    return [float(line.split("average precision ")[1].split(",")[0]) for line in lines]


def test_the_demo_finds_membranes_draws_them_and_resumes(invoke, tmp_path):
    result = invoke()
    assert result.exit_code == 0, result.output
    assert len(precisions(result.output)) == 6
    assert min(precisions(result.output)) > 0.9
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert summary["blocks"]["done"] == summary["blocks"]["computed"] == 2
    with Image.open(tmp_path / "demo/panel.png") as picture:
        assert picture.width > 3 * 500

    again = invoke()
    assert again.exit_code == 0, again.output
    assert precisions(again.output) == precisions(result.output)
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert summary["blocks"]["skipped"] == 2 and summary["blocks"]["computed"] == 0


def test_a_config_that_the_reader_changed_is_kept(tmp_path):
    path = demo.write_config(tmp_path)
    path.write_text(path.read_text().replace('"num_workers": 2', '"num_workers": 1'))
    assert json.loads(demo.write_config(tmp_path).read_text())["num_workers"] == 1
