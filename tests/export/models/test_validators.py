"""Our packages of bioimage.io, validated and run by bioimage.io's own library (make test-validators)."""

import os
import subprocess

import pytest

from em_blocks.export.models.bioimageio import export_bioimageio
from em_blocks.export.models.model import Model
from em_blocks.models.setup import Setup
from travelling import trained_setup

CHECK = """
import sys
from bioimageio.core import test_description
from bioimageio.spec import load_description
from bioimageio.spec.model.v0_5 import ModelDescr

model = load_description(sys.argv[1])
assert isinstance(model, ModelDescr), model.validation_summary.format()
assert [axis.scale for axis in model.inputs[0].axes if axis.type == "space"] == [40.0, 4.6, 4.6]
done = test_description(sys.argv[1], weight_format="onnx")  # to the 1e-5 that the package states
assert done.status == "passed", done.format()
"""


def test_bioimageio_accepts_our_package_and_reproduces_its_test_output(tmp_path):
    python = os.environ.get("EM_BLOCKS_VALIDATORS")
    if not python:
        pytest.skip("EM_BLOCKS_VALIDATORS names no Python with bioimageio.core and onnxruntime")
    setup = Setup.from_folder(trained_setup(tmp_path / "tiny"))
    export_bioimageio(Model(setup, setup.checkpoint_path()), tmp_path / "tiny.zip")
    done = subprocess.run(
        [python, "-c", CHECK, tmp_path / "tiny.zip"], capture_output=True, text=True, timeout=200,
        env={**os.environ, "BIOIMAGEIO_CACHE_PATH": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
