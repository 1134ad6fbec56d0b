"""`em-blocks clean` and `em-blocks downsample` as a user types them, and killed in the middle."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from blockwise import wait_for
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import LEDGER

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (20, 60, 90)


def prepare(tmp_path):
    """Labels in many parts, a config to clean them, and one for the pyramid of the result."""
    noise = np.random.default_rng(2).random((9, *SHAPE))
    found = np.stack([ndimage.gaussian_filter(n, 1.5) for n in noise]).argmax(axis=0)
    labels = Volume.create(str(tmp_path / "in.zarr/labels"), shape=SHAPE, dtype="uint32", frame=FRAME,
                           chunk_shape=(8, 16, 16))
    labels.write(labels.box, np.where(found > 2, found, 0).astype("uint32"))
    (tmp_path / "clean.json").write_text(json.dumps({
        "kind": "clean", "run": "clean", "labels": "in.zarr/labels", "min_size": 30,
        "output": "out/seg.zarr/clean/s0", "chunk_shape": [5, 10, 15], "block_shape": [10, 20, 30],
        "num_workers": 2,
    }))
    (tmp_path / "pyramid.json").write_text(json.dumps({
        "kind": "downsample", "run": "pyramid", "input": "out/seg.zarr/clean/s0", "method": "mode",
        "output": "out/seg.zarr/clean", "levels": 3, "chunk_shape": [5, 10, 15],
        "block_shape": [5, 10, 15], "num_workers": 2,
    }))
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    return prepare(tmp_path)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """A folder whose labels were cleaned without any trouble."""
    folder = prepare(tmp_path_factory.mktemp("cleaned"))
    dry = call("clean", folder / "clean.json", "--dry-run")
    assert dry.exit_code == 0 and dry.stdout.count("blocks  ") == 3
    assert not (folder / "out").exists()
    done = call("clean", folder / "clean.json")
    assert done.exit_code == 0 and "erased" in done.stdout
    return folder


def call(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def voxels(folder):
    """Every stored chunk of the cleaned labels, without what names the run and its starts."""
    root = folder / "out/seg.zarr/clean/s0"
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in (".zattrs", LEDGER))
    return {p.relative_to(root): p.read_bytes() for p in files}


def test_clean_and_downsample_one_after_the_other(cleaned):
    folder = cleaned
    made = json.loads(call("downsample", folder / "pyramid.json", "--json").stdout)
    assert [step["run"] for step in made] == ["pyramid.s1", "pyramid.s2", "pyramid.s3"]
    attributes = json.loads((folder / "out/seg.zarr/clean/.zattrs").read_text())
    levels = [d["path"] for d in attributes["multiscales"][0]["datasets"]]
    assert levels == ["s0", "s1", "s2", "s3"]
    for level in levels:
        assert Volume.open(str(folder / "out/seg.zarr/clean" / level)).frame.offset == FRAME.offset

    for verb, config in (("clean", "clean.json"), ("downsample", "pyramid.json")):
        again = json.loads(call(verb, folder / config, "--json").stdout)
        assert {step["blocks"]["computed"] for step in again} == {0}
        status = json.loads(call("status", folder / config, "--json").stdout)
        assert [step["state"] for step in status] == ["done"] * 3
        assert call("verify", folder / config).exit_code == 0
    for config, steps in (("clean.json", ("parts", "join", "cleaned")), ("pyramid.json", ("s1", "s3"))):
        for step in steps:
            replay = call("replay", folder / config, "0/0/0", "--step", step)
            assert "equals the one" in replay.stdout, step

    more = json.loads(call("downsample", folder / "pyramid.json", "--set", "levels=4", "--json").stdout)
    assert [step["blocks"]["computed"] > 0 for step in more] == [False] * 3 + [True]
    assert call("retry", folder / "pyramid.json").exit_code == 0
    plan = call("plan", folder / "pyramid.json")
    assert plan.exit_code == 0
    assert all(f"\n{step} " in plan.stdout for step in ("s1", "s2", "s3")), plan.stdout

    changed = call("clean", folder / "clean.json", "--set", "min_size=31")
    assert changed.exit_code == 3 and "config.min_size: 30 -> 31" in changed.stderr


@pytest.mark.parametrize(
    ("verb", "config", "override", "words"),
    [
        ("clean", "clean.json", "labels=nowhere.zarr/x", "There is no volume"),
        ("clean", "clean.json", "fraction=2", "'fraction': got 2"),
        ("clean", "clean.json", "block_shape=[10,20,31]", "not a multiple of the chunks"),
        ("clean", "clean.json", "output=in.zarr/labels", "lie in each other"),
        ("clean", "clean.json", "format=precomputed", None),
        ("downsample", "pyramid.json", "input=in.zarr/labels", None),
        ("downsample", "pyramid.json", "method=average", "'method': got 'average'"),
        ("downsample", "pyramid.json", "factors=[[2,2]]", "'factors.0"),
        ("downsample", "pyramid.json", "input=in.zarr", "It is a container"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(folder, verb, config, override, words):
    before = sorted(folder.rglob("*"))
    result = call(verb, folder / config, "--set", override, "--dry-run")
    if words is None:
        assert result.exit_code == 0, result.stderr
    else:
        assert result.exit_code == 2 and words in result.stderr
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_step_that_fails_ends_with_1_and_says_what_to_do(folder):
    labels = Volume.create(str(folder / "in.zarr/full"), shape=(8, 8, 64), dtype="uint8", frame=FRAME,
                           chunk_shape=(8, 8, 8))
    values = np.full(labels.shape, 255, "uint8")
    values[:, :, 20:30] = 0
    labels.write(labels.box, values)
    result = call("clean", folder / "clean.json", "--set", "labels=in.zarr/full", "--set",
                  "max_retries=0")
    assert result.exit_code == 1
    assert "Set the key 'dtype'" in " ".join(result.stdout.split())
    assert "blocks of the step before" not in result.stdout


@pytest.mark.parametrize(
    "moment", ["tables/clean/parts/?/**/*", "tables/clean/changes/?/**/*", "seg.zarr/clean/s0/?/**/*"]
)
def test_killed_anywhere_equals_undisturbed(folder, cleaned, moment):
    """kill -9 of command and workers in each of the steps; then the command is repeated."""
    code = "from em_blocks.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "clean", str(folder / "clean.json")], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any((folder / "out").glob(moment)), timeout_s=60)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert call("clean", folder / "clean.json").exit_code == 0
    assert voxels(folder) == voxels(cleaned)
    assert len(voxels(cleaned)) > 50
