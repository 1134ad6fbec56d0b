"""Benchmarks: no result without a measurement."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from parts.same_record import differences, of_all_starts, taken

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FILES = sorted([*BENCHMARKS.glob("*.py"), *BENCHMARKS.glob("parts/*.py")])


def calls(statements):
    """Names of all functions and methods that are called in some statements."""
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                yield getattr(node.func, "attr", getattr(node.func, "id", ""))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_benchmark_that_crashes_prints_no_result(file):
    tries = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Try)]
    for node in tries:
        assert not {"print", "report", "dumps", "echo"} & set(calls(node.finalbody))


def test_the_gpu_check_needs_a_gpu_and_says_so():
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", BENCHMARKS / "gpu_check.sh"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and "sees no GPU" in ended.stderr and ended.stdout == ""


class Rows(dict):
    """Collections of a database, by name."""

    def list_collection_names(self):
        return list(self)

    def __getitem__(self, name):
        return Collection(super().__getitem__(name))


class Collection(list):
    def find(self):
        return iter(self)


def record(folder, *, voxels=b"abc", wall_s=1.0, checksum=5, epoch=1, checkout="/new"):
    """What a chain left in `folder`, by a run that took `wall_s`."""
    chunk, report = folder / "p.zarr/raw/0.0.0", folder / "summary.json"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(voxels)
    report.write_text(json.dumps({
        "wall_s": wall_s, "output": str(folder / "p.zarr"), "setup": f"{checkout}/setups/affinities",
    }))
    block = {"_id": "r/0/0/0", "checksums": {"raw": checksum}, "epoch": epoch, "host": str(wall_s)}
    return taken(folder, [Path("/old"), Path("/new")], Rows(blocks=[block], workers=[{"_id": 1}]), {})


def test_two_folders_with_the_same_results_do_not_differ_by_place_and_time(tmp_path):
    first, second = record(tmp_path / "a"), record(tmp_path / "b", wall_s=2.0, checkout="/old")
    assert sorted(first) == ["file p.zarr/raw/0.0.0", "file summary.json", "row blocks r/0/0/0"]
    assert differences(second, first) == []


def test_one_other_byte_and_one_other_checksum_are_named(tmp_path):
    first = record(tmp_path / "a")
    second = record(tmp_path / "b", voxels=b"abd", checksum=6)
    chunk, row = differences(second, first)
    assert chunk.startswith("different: file p.zarr/raw/0.0.0")
    assert row == "different: row blocks r/0/0/0.checksums.raw: 6 instead of 5"


def test_a_file_too_few_or_too_many_is_a_difference(tmp_path):
    first = record(tmp_path / "a")
    fewer = {name: value for name, value in first.items() if "zarr" not in name}
    assert differences(fewer, first) == ["missing: file p.zarr/raw/0.0.0"]
    assert differences(first, fewer) == ["too much: file p.zarr/raw/0.0.0"]


def test_how_often_a_run_was_started_counts_only_if_it_was_started_once(tmp_path):
    first, second = record(tmp_path / "a"), record(tmp_path / "b", epoch=2)
    assert differences(second, first) == ["different: row blocks r/0/0/0.epoch: 2 instead of 1"]
    assert differences(of_all_starts(second), of_all_starts(first)) == []
