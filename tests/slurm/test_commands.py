"""The commands of users on a real Slurm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blockwise import make_raw, wait_for
from cluster.slots import CONTROLLER
from em_blocks.cli.common import load_config
from em_blocks.db.connect import connect
from em_blocks.volumes import Volume

pytestmark = pytest.mark.slurm

PROJECT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EM_BLOCKS_DATA", PROJECT.parent / "shared" / "data"))
EM_BLOCKS = Path(sys.executable).with_name("em-blocks")

# Small enough for two cores, and the same arithmetic wherever a block is computed.
SMALL = {
    "roi": {"offset": [0, 0, 0], "shape": [640, 1280, 1920]}, "block_shape": [32, 64, 64],
    "tile_shape": [32, 64, 64], "test_time_augmentation": "none", "precision": "fp32",
}


def overrides(**values):
    """`values` as --set of a command."""
    return [part for key, value in values.items()
            for part in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")]


def command(verb, config, **values):
    return [EM_BLOCKS, verb, config, *overrides(**values)]


def start(site, *arguments, **values):
    """A command on the submit host; what it says goes to ``command.log``."""
    with open(site.folder / "command.log", "ab") as log:
        return site.call(CONTROLLER, command(*arguments, **values), stdout=log, stderr=log)


def documents(site, run, collection="blocks"):
    with connect(site.mongod.local_uri) as client:
        return list(client["em_blocks"][collection].find({"run": run}))


def said(site):
    return (site.folder / "command.log").read_text()


@pytest.fixture(scope="module")
def real_raw(tmp_path_factory):
    """The FIB-25 volume, imported."""
    if not DATA.is_dir():
        pytest.skip(f"no real volumes at {DATA} (set EM_BLOCKS_DATA to their folder)")
    output = tmp_path_factory.mktemp("real") / "fib25.zarr/raw"
    subprocess.run(
        command("ingest", PROJECT / "configs/fib25_ingest.json", output=str(output)),
        env={**os.environ, "EM_BLOCKS_DATA": str(DATA)}, check=True, capture_output=True,
    )
    return output


@pytest.mark.timeout(600)
def test_the_real_volume_is_the_same_from_a_cluster_that_loses_jobs_and_a_node(site, real_raw):
    predict, segment = (PROJECT / f"configs/fib25_{name}.json" for name in ("affinities", "segment"))
    slurm = {**site.settings, "cluster": {"cpus": 1}}
    here, there = site.folder / "here", site.folder / "there"

    first = {**SMALL, "raw": str(real_raw)}
    subprocess.run(
        command("predict", predict, **first, output=f"{here}/p.zarr"), check=True, capture_output=True
    )
    process = start(site, "predict", predict, **first, **slurm, output=f"{there}/p.zarr")
    wait_for(lambda: len(documents(site, "fib25_affinities")) >= 3, 120)
    for job in site.cluster.squeue("--states=R")[:2]:
        site.cluster.scancel(job.id)
    site.cluster.stop_node(2)
    assert process.wait(280) == 0, said(site)
    assert_same_volume(here / "p.zarr/affinities", there / "p.zarr/affinities")
    blocks = documents(site, "fib25_affinities")
    assert len(blocks) == 12 and {b["state"] for b in blocks} == {"done"}
    assert {b["host"] for b in blocks} <= {"n1", "n2", "n3"}

    second = {"affinities": f"{here}/p.zarr/affinities", "block_shape": SMALL["block_shape"],
              "chunk_shape": SMALL["block_shape"], "tile_shape": SMALL["tile_shape"]}
    subprocess.run(
        command("segment", segment, **second, output=f"{here}/s.zarr"), check=True, capture_output=True
    )
    process = start(site, "segment", segment, **second, **slurm, output=f"{there}/s.zarr")
    wait_for(lambda: site.cluster.squeue("--states=R"), 120)
    site.cluster.scancel(site.cluster.squeue("--states=R")[0].id)
    assert process.wait(280) == 0, said(site)
    assert_same_volume(*(folder / "s.zarr/segments/0.7" for folder in (here, there)))


def assert_same_volume(here, there):
    ours, theirs = Volume.open(str(here)), Volume.open(str(there))
    np.testing.assert_array_equal(ours.read(ours.box), theirs.read(theirs.box))


def test_a_printed_script_brings_workers_to_a_run_that_starts_later(site, setup_folder):
    raw = make_raw(site.folder, (24, 48, 48))
    config = site.folder / "config.json"
    config.write_text(json.dumps({
        "kind": "predict", "run": "by_hand", "raw": raw.path, "setup": str(setup_folder),
        "checkpoint": "best", "output": str(site.folder / "out.zarr"), "block_shape": [6, 12, 12],
        **site.settings, "num_workers": 3,
    }))
    script = subprocess.run(
        [*command("predict", config), "--print-only"], check=True, capture_output=True, text=True,
    ).stdout
    assert "#SBATCH --array=1-3" in script and "DB_PASSWORD" not in script
    (site.folder / "job.sh").write_text(script)
    site.cluster.call("sbatch", str(site.folder / "job.sh"))
    wait_for(lambda: len(site.cluster.squeue("--states=R")) == 3)
    process = start(site, "predict", config, launcher="external")
    assert process.wait(120) == 0, said(site)
    workers = documents(site, "by_hand", "workers")
    assert workers and {w["state"] for w in workers} == {"left"}
    assert {b["state"] for b in documents(site, "by_hand")} == {"done"}
    assert load_config(config).grid().n_blocks == len(documents(site, "by_hand")) == 64
    wait_for(lambda: not site.cluster.squeue(), 30)  # workers end with the run
