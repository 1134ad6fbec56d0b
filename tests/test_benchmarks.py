"""Benchmarks: no result without a measurement."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
