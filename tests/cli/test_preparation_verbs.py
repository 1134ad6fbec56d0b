"""`em-blocks equalize`, `tissue-mask`, `metric-mask` and `convert` as a user types them, and killed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from blockwise import wait_for
from em_blocks.cli.main import main
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import LEDGER
from preparing import textured, volume, voxels

SHAPE = (12, 70, 90)
BLOCKS = {"chunk_shape": [4, 10, 15], "block_shape": [4, 20, 30], "num_workers": 2}
CONFIGS = {
    "equalize": {"raw": "in.zarr/raw", "mask": "in.zarr/labels", "kernel_shape": [4, 16, 16]},
    "tissue_mask": {"raw": "in.zarr/raw", "grey_range": [60, 200], "min_size": 100,
                    "opening": [0, 1, 1], "closing": [0, 1, 1]},
    "metric_mask": {"labels": "in.zarr/labels", "organelle": "golgi"},
    "convert": {"input": "in.zarr/raw", "conversions": [
        {"kind": "pad", "before": [2, 3, 4], "value": "mirror"}, {"kind": "invert"},
    ]},
}
ORDER = ("tissue_mask", "equalize", "metric_mask", "convert")


def prepare(folder):
    """An image, labels, and a config of each preparation."""
    volume(folder, textured(SHAPE))
    volume(folder, (textured(SHAPE) > 120).astype("uint16"), "labels")
    for kind, values in CONFIGS.items():
        (folder / f"{kind}.json").write_text(json.dumps({
            "kind": kind, "run": kind, "output": f"out/data.zarr/{kind}", **BLOCKS, **values,
        }))
    return folder


def call(verb, folder, kind, *options):
    config = folder / f"{kind}.json"
    result = CliRunner().invoke(main, [verb, str(config), *map(str, options)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(folder, kind, *options):
    return call(kind.replace("_", "-"), folder, kind, *options)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which all of it was done without any trouble."""
    folder = prepare(tmp_path_factory.mktemp("prepared"))
    for kind in ORDER:
        done = run(folder, kind)
        assert done.exit_code == 0, done.output
    return folder


def stored(folder, kind):
    """Every stored chunk of a result, without what names the run and its starts."""
    root = folder / "out/data.zarr" / kind
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in (".zattrs", LEDGER))
    return {p.relative_to(root): p.read_bytes() for p in files}


@pytest.mark.parametrize("kind", ORDER)
def test_a_verb_is_done_once_and_known_to_the_verbs_of_all_runs(prepared, kind):
    again = json.loads(run(prepared, kind, "--json").stdout)
    for report in again if isinstance(again, list) else [again]:
        assert report["state"] == "done" and report["blocks"]["computed"] == 0
    status = json.loads(call("status", prepared, kind, "--json").stdout)
    assert {s["state"] for s in (status if isinstance(status, list) else [status])} == {"done"}
    assert call("verify", prepared, kind).exit_code == 0
    assert call("plan", prepared, kind, "--no-probe").exit_code == 0
    steps = {"tissue_mask": ["--step", "filled"], "equalize": ["--step", "equalized"]}.get(kind, [])
    assert "equals the one" in call("replay", prepared, kind, "0/1/1", *steps).stdout
    made = Volume.open(str(prepared / "out/data.zarr" / kind))
    assert made.dtype == np.uint8 and len(np.unique(voxels(made))) > 1


MOMENTS = {
    "equalize": ["tables/equalize/maps/?/**/*", "data.zarr/equalize/?/**/*"],
    "tissue_mask": ["tables/tissue_mask/hole_parts/**/?/*", "data.zarr/tissue_mask/?/**/*"],
    "metric_mask": ["data.zarr/metric_mask/?/**/*"],
}


@pytest.mark.parametrize(("kind", "moment"), [(k, m) for k in MOMENTS for m in MOMENTS[k]])
def test_killed_anywhere_equals_undisturbed(tmp_path, prepared, kind, moment):
    """kill -9 of command and workers in each of the steps; then the command is repeated."""
    folder = prepare(tmp_path)
    code = "from em_blocks.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, kind.replace("_", "-"), str(folder / f"{kind}.json")],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any((folder / "out").glob(moment)), timeout_s=60)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = run(folder, kind)
    assert done.exit_code == 0, done.output
    assert stored(folder, kind) == stored(prepared, kind)
    assert len(stored(prepared, kind)) > 50


@pytest.mark.parametrize(
    ("kind", "override", "words"),
    [
        ("equalize", "kernel_shape=[1,1,1]", "fewer than 256 voxels"),
        ("equalize", "raw=nowhere.zarr/x", "There is no volume"),
        ("equalize", "output=in.zarr/raw", "lie in each other"),
        ("equalize", "block_shape=[4,20,31]", "not a multiple of the chunks"),
        ("tissue_mask", "mask=in.zarr/labels", "would cut holes"),
        ("tissue_mask", "output=in.zarr/raw/mask", "lie in each other"),
        ("metric_mask", "labels=in.zarr", "It is a container"),
        ("metric_mask", "inwards=3", "either by 'organelle'"),
        ("convert", "conversions=[]", "'conversions'"),
        ("convert", 'conversions=[{"kind":"rgb_to_ids"}]', "takes 3 or 4 channels"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(tmp_path, kind, override, words):
    folder = prepare(tmp_path)
    before = sorted(folder.rglob("*"))
    result = run(folder, kind, "--set", override, "--dry-run")
    assert result.exit_code == 2 and words in result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
