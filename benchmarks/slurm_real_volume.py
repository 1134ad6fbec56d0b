"""A real volume on a real Slurm that loses jobs and a node, against the same commands on this machine.

The FIB-SEM cube of ``configs/fib25_*.json`` is predicted (fp32) and segmented here, by two workers, and
on a Slurm of three nodes (network namespaces on this machine), by six. There, as soon as three blocks
are done, two jobs are cancelled and slurmd of n2 is stopped; its orphans live on. In the end every
voxel and every table must be the same, and no worker of n2 may have recorded a block after
it counted as failed. Needs root, `make system-packages`, and EM_BLOCKS_DATA as the configs do.
Takes two minutes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from cluster.mongod import Mongod  # noqa: E402
from cluster.runs import Site  # noqa: E402
from cluster.slots import CONTROLLER  # noqa: E402
from cluster.slurm import Slurm  # noqa: E402
from em_blocks.db.connect import connect  # noqa: E402
from em_blocks.volumes.stores.ledger import LEDGER  # noqa: E402

EM_BLOCKS = Path(sys.executable).with_name("em-blocks")
# Smaller blocks than those of the configs, so that there is something to lose in the middle.
BLOCKS = {"block_shape": [64, 64, 64]}
STEPS = (("predict", "fib25_affinities_fp32"), ("segment", "fib25_segment"))


def command(verb: str, config: str, **values) -> list[str]:
    sets = (f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in values.items())
    return [str(EM_BLOCKS), verb, str(PROJECT / "configs" / f"{config}.json"),
            *(part for one in sets for part in ("--set", one))]


def inputs_and_outputs(verb: str, raw: Path, folder: Path) -> dict:
    """Return where a step reads and writes."""
    if verb == "predict":
        return {**BLOCKS, "raw": str(raw), "output": str(folder / "predictions.zarr")}
    return {**BLOCKS, "tile_shape": [64, 64, 64], "chunk_shape": [64, 64, 64],
            "affinities": str(folder / "predictions.zarr/affinities"),
            "output": str(folder / "segmentation.zarr")}


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file of both outputs but metadata, which hold paths and what follows from them."""
    found = {}
    for name in ("predictions.zarr", "segmentation.zarr"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file() and path.name not in (".zattrs", "tables.json", LEDGER):
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Documents:
    """Return what the database of the cluster knows of a step and its parts."""

    def __init__(self, site: Site, prefix: str):
        self._site, self._query = site, {"run": {"$regex": f"^{prefix}($|\\.)"}}

    def of(self, collection: str) -> list[dict]:
        with connect(self._site.mongod.local_uri) as client:
            return list(client["em_blocks"][collection].find(self._query))


def on_the_cluster(site: Site, verb: str, config: str, **values) -> dict:
    """Run a step there, hurt it, and tell how it ended."""
    documents = Documents(site, config)
    slurm = {**site.settings, "cluster": {"cpus": 1}}
    with open(site.folder / f"{verb}.log", "wb") as log:
        process = site.call(CONTROLLER, command(verb, config, **values, **slurm), stdout=log, stderr=log)
    while sum(b["state"] == "done" for b in documents.of("blocks")) < 3 and process.poll() is None:
        time.sleep(0.2)
    cancelled = [job.id for job in site.cluster.squeue("--states=R")[:2]]
    for job in cancelled:
        site.cluster.scancel(job)
    site.cluster.stop_node(2)
    code = process.wait(1200)
    site.cluster.start_node(2)
    site.cluster.wait_idle()
    workers = {w["worker"]: w for w in documents.of("workers")}
    late = [b for b in documents.of("blocks") if (w := workers[b["worker"]])["state"] != "working"
            and w["left"] is not None and b["finished"] > w["left"]]
    return {
        "exit_code": code, "cancelled": len(cancelled), "late": len(late),
        "blocks": dict(Counter(b["host"] for b in documents.of("blocks"))),
        "not_done": sum(b["state"] != "done" for b in documents.of("blocks")),
        "workers": dict(Counter(f"{w['host']} {w['state']}" for w in workers.values())),
    }


def run(root: Path) -> tuple[int, int]:
    """Files that differ, of how many."""
    raw = root / "fib25.zarr/raw"
    subprocess.run(command("ingest", "fib25_ingest", output=str(raw)), check=True, capture_output=True)
    here, there = root / "here", root / "there"
    for verb, config in STEPS:
        subprocess.run(command(verb, config, **inputs_and_outputs(verb, raw, here)), check=True,
                       capture_output=True)
    problems = 0
    with Slurm(root / "slurm", namespaces=True) as slurm, Mongod(slurm, root / "mongod") as mongod:
        site = Site(slurm, mongod, root)
        for verb, config in STEPS:
            found = on_the_cluster(site, verb, config, **inputs_and_outputs(verb, raw, there))
            print(f"{verb}: {json.dumps(found)}", flush=True)
            problems += bool(found["exit_code"] or found["late"] or found["not_done"])
    expected, made = files(here), files(there)
    different = [name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name)]
    print("\n".join(sorted(different)[:20]))
    return len(different) + problems, len(expected)


@click.command()
def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        different, n = run(Path(folder))
    print(json.dumps({"name": "files that a Slurm that lost jobs and a node made differently",
                      "value": different, "unit": "files", "against": n, "ratio": different / n}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
