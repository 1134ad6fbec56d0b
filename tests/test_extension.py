"""What others add in one file outside of this package: a task, and more kinds of things below."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blockwise import FRAME
from em_blocks.volumes import Volume
from foreign import distribution, visible
from tiny_setup import tiny_config, write_setup

SHAPE = (20, 30, 50)

TASK = '''
"""Voxels above a threshold."""

from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from em_blocks.config import StorePath
from em_blocks.geometry import BlockGrid
from em_blocks.outputs import VolumeOutput
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes import Volume


class Threshold(BlockwiseTask):
    """Mark the voxels of CONFIG's raw volume that are at least as bright as its threshold."""

    reads: ClassVar[tuple[str, ...]] = ("raw",)

    kind: Literal["threshold_raw"] = "threshold_raw"
    raw: StorePath
    output: StorePath
    threshold: int = 128

    def grid(self):
        raw = Volume.open(self.raw)
        return BlockGrid(raw.frame, raw.shape, self.block_shape)

    def inputs(self):
        return {"raw": list(Volume.open(self.raw).shape)}

    def output_specs(self):
        return [VolumeOutput("mask", f"{self.output}/mask", "uint8", (5, 10, 10))]

    def outputs_root(self):
        return self.output

    @contextmanager
    def open(self, context):
        raw, out = Volume.open(self.raw), Volume.open(f"{self.output}/mask", mode="r+")

        def process(block, report):
            with report.measure("read"):
                values = raw.read(block.write_box)
            if block.key == "1/2/3" and Path(f"{self.output}/poison").exists():
                raise ValueError("this block is poison")
            with report.measure("write"):
                report.write("mask", out, block.write_box, (values >= self.threshold).astype("uint8"))

        yield process
'''


FORMATS = '''
"""Two storage formats: zarr with another compressor, and one .npy file per chunk."""

import io

import numpy as np
import tensorstore as ts

from em_blocks.volumes.formats.base import StorageFormat
from em_blocks.volumes.formats.zarr2 import Zarr2
from em_blocks.volumes.stores import store


class Lz4(Zarr2):
    """zarr v2 with lz4, and a file that says so."""

    marker = "lz4.json"

    def creation_spec(self, path, layout, attributes):
        spec = super().creation_spec(path, layout, attributes)
        compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
        return {"metadata": {**spec["metadata"], "compressor": compressor}}

    def create(self, path, layout, attributes):
        super().create(path, layout, attributes)
        store.write_json(path, self.marker, {})


class Npy(StorageFormat):
    """Chunks (z, y, x) as .npy files; those that are missing are 0."""

    marker = attributes_file = "npy.json"
    has_pyramids = True

    def check(self, layout):
        if layout.channels is not None:
            raise ValueError("npy has no channels")

    def create(self, path, layout, attributes):
        store.write_json(path, self.marker, {
            **attributes, "shape": layout.shape, "chunk": layout.chunk_shape,
            "dtype": str(layout.dtype),
        })

    def open(self, path, *, write):
        about = store.read_json(path, self.marker)
        chunks = ts.KvStore.open(store.kvstore_spec(path)).result()

        def name(domain):
            return "_".join(map(str, domain.inclusive_min)) + ".npy"

        def read(domain, values, _):
            found = chunks.read(name(domain)).result()
            values[...] = np.load(io.BytesIO(found.value)) if found.state == "value" else 0

        def save(domain, values, _):
            file = io.BytesIO()
            np.save(file, np.array(values))
            chunks.write(name(domain), file.getvalue()).result()

        return ts.virtual_chunked(
            read, save if write else None, dtype=ts.dtype(about["dtype"]), shape=about["shape"],
            chunk_layout=ts.ChunkLayout(chunk_shape=about["chunk"]),
            context=ts.Context({"data_copy_concurrency": {"limit": 2}}),
        )
'''


@pytest.fixture
def packages(tmp_path):
    """Folder of the packages of others."""
    return tmp_path / "packages"


@pytest.fixture
def em_blocks(packages, tmp_path):
    """The command, as its user types it where those packages are installed."""

    def call(*arguments, code=0):
        done = subprocess.run(
            [Path(sys.executable).with_name("em-blocks"), *map(str, arguments)], cwd=tmp_path,
            env=visible(packages), capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if "--json" in arguments else done.stdout + done.stderr

    return call


@pytest.fixture
def raw(tmp_path):
    volume = Volume.create(
        str(tmp_path / "raw.zarr/raw"), shape=SHAPE, dtype="uint8", frame=FRAME,
        chunk_shape=(10, 10, 10),
    )
    values = np.random.default_rng(1).integers(0, 256, SHAPE).astype("uint8")
    volume.write(volume.box, values)
    return values


def test_a_task_of_another_package_is_a_verb_like_any_other(packages, em_blocks, raw, tmp_path):
    distribution(packages, "brightness", TASK, tasks="threshold_raw = brightness:Threshold")
    config = tmp_path / "threshold.json"
    config.write_text(json.dumps({
        "kind": "threshold_raw", "run": "bright", "raw": "raw.zarr/raw", "output": "out/mask.zarr",
        "block_shape": [10, 10, 10], "num_workers": 2, "max_retries": 0,
    }))
    assert "threshold-raw" in em_blocks("--help") and "brightness" in em_blocks("--help")
    assert "at least as bright" in em_blocks("threshold-raw", "--help")
    (step,) = json.loads(em_blocks("plan", config, "--json"))["steps"]
    assert step["blocks"] == step["left"] == 30 and step["seconds_per_block"] > 0

    poison = tmp_path / "out/mask.zarr/poison"
    poison.parent.mkdir(parents=True)
    poison.touch()
    assert "this block is poison" in em_blocks("threshold-raw", config, code=1)
    poison.unlink()
    assert json.loads(em_blocks("status", config, "--json"))["blocks"]["quarantined"] == 1
    report = json.loads(em_blocks("retry", config, "--json"))
    assert report["blocks"]["computed"] == 1 and report["blocks"]["done"] == 30

    found = Volume.open(str(tmp_path / "out/mask.zarr/mask"))
    np.testing.assert_array_equal(found.read(found.box), raw >= 128)
    assert found.frame == FRAME
    assert "equals the one in the database" in em_blocks("replay", config, "1/2/3")
    assert "30 done blocks read, 0 damaged" in em_blocks("verify", config)
    refused = em_blocks("threshold-raw", config, "--set", "threshold=200", code=3)
    assert "config.threshold: 128 -> 200" in refused
    em_blocks("forget", config, "--yes")
    assert not list((tmp_path / "out/mask.zarr/mask").iterdir())


def test_a_task_whose_package_is_broken_is_refused_in_one_paragraph(packages, em_blocks, tmp_path):
    distribution(packages, "brightness", "1 / 0", tasks="threshold_raw = brightness:Threshold")
    config = tmp_path / "threshold.json"
    config.write_text('{"kind": "threshold_raw"}')
    for command in (["threshold-raw"], ["status"]):
        said = em_blocks(*command, config, code=2)
        assert said.startswith("Error: The entry point 'threshold_raw'"), said
        assert "ZeroDivisionError" in said and "Traceback" not in said
    assert "threshold-raw" in em_blocks("--help")  # and every other verb works


LAUNCHER = '''
"""Workers that let other programs go first."""

import os
import subprocess

from em_blocks.runtime.launchers.base import Launcher
from em_blocks.runtime.launchers.environment import worker_command, worker_environment


class NiceLauncher(Launcher):
    """Starts workers on this machine by nice."""

    local = True
    commands = ("nice",)
    coming = "they start when this machine has time"

    def __init__(self, task, session, logs, n_workers):
        super().__init__(task, session, logs, n_workers)
        logs.mkdir(parents=True, exist_ok=True)
        self.started, self.running = 0, {}

    def poll(self, connections, workers):
        for slot, process in list(self.running.items()):
            if process.poll() is not None:
                connections.dismiss(slot, "its process ended")
                workers.ended(slot)
                del self.running[slot]
        while len(self.running) < self.n_workers:
            self.started += 1
            slot = f"nice-{self.started}"
            environment = {**worker_environment(self.n_workers), "EM_BLOCKS_SLOT": slot}
            with open(self.logs / f"worker-{slot}.log", "ab") as log:
                self.running[slot] = subprocess.Popen(
                    ["nice", "-n", "7", *worker_command(self.task, self.session)],
                    env=environment, stdout=log, stderr=log,
                )

    def stop(self):
        for process in self.running.values():
            process.wait(30)
'''


def test_a_launcher_of_another_package_is_one_file(packages, em_blocks, raw, tmp_path):
    nice = TASK.replace("def process(block, report):", """def process(block, report):
            import os
            report.counts["nice"] = os.nice(0)""")
    distribution(packages, "brightness", nice, tasks="threshold_raw = brightness:Threshold")
    distribution(packages, "friendly", LAUNCHER, launchers="nice = friendly:NiceLauncher")
    config = tmp_path / "threshold.json"
    config.write_text(json.dumps({
        "kind": "threshold_raw", "run": "bright", "raw": "raw.zarr/raw", "output": "out/mask.zarr",
        "block_shape": [10, 10, 10], "num_workers": 2, "launcher": "nice",
    }))
    assert json.loads(em_blocks("plan", config, "--no-probe", "--json"))["launcher"] == "nice"
    report = json.loads(em_blocks("threshold-raw", config, "--json"))
    assert report["blocks"]["computed"] == 30
    assert report["counts"]["nice"] == 30 * (os.nice(0) + 7)
    logs = {path.name for path in (tmp_path / "out/logs/bright").iterdir()}
    assert logs == {"worker-nice-1.log", "worker-nice-2.log"}
    found = Volume.open(str(tmp_path / "out/mask.zarr/mask"))
    np.testing.assert_array_equal(found.read(found.box), raw >= 128)

    said = em_blocks("threshold-raw", config, "--set", "launcher=rude", code=2)
    assert "input should be 'local', 'slurm', 'lsf', 'external' or 'nice'" in said


def test_a_launcher_that_is_none_is_refused_in_one_paragraph(packages, em_blocks, raw, tmp_path):
    distribution(packages, "brightness", TASK, tasks="threshold_raw = brightness:Threshold")
    distribution(packages, "rude", "class Rude: pass", launchers="rude = rude:Rude")
    config = tmp_path / "threshold.json"
    config.write_text(json.dumps({
        "kind": "threshold_raw", "run": "bright", "raw": "raw.zarr/raw", "output": "out/mask.zarr",
        "block_shape": [10, 10, 10], "launcher": "rude",
    }))
    said = em_blocks("threshold-raw", config, code=2)
    assert "launchers.base.Launcher" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


HEAD = '''
"""Which voxels belong to objects of an odd id, and a loss that asks no more than a margin."""

from typing import Literal

import numpy as np
from torch import Tensor

from em_blocks.models.head import Head, Storage
from em_blocks.nets.losses import Loss


class Hinge(Loss):
    """Squared distance to the right side of a margin."""

    kind: Literal["hinge"] = "hinge"
    margin: float = 1.0

    def __call__(self, logits, target, mask, *, activate=None) -> Tensor:
        sides = (2 * target.float() - 1)[:, None]
        error = (self.margin - sides * logits.float()).clamp(min=0).square()
        return (error * mask[:, None]).sum() / mask.sum().clamp(min=1)


class OddHead(Head):
    """Objects of an odd id."""

    kind: Literal["odd"]
    channels: Literal[1] = 1
    activation: Literal["tanh"] = "tanh"

    @property
    def default_loss(self):
        return Hinge()

    def reach(self, voxel_size):
        return (0, 1, 1)  # more than is needed, and not the same for all axes

    def targets(self, truth):
        labels = truth.labels["labels"]
        return {"target": (labels % 2).astype("uint8"), "mask": (labels > 0).astype("uint8")}

    def score_names(self):
        return {"right": "higher", "wrong": "lower"}

    def scores(self, predicted, truth):
        made = self.targets(truth)
        right = float(((predicted[0] > 0) == made["target"])[made["mask"] > 0].mean())
        return {"right": right, "wrong": 1 - right}

    @property
    def storage(self):
        return Storage("int8", {"int8": 50.0}, {"odd": True}, {"uint8": "has no negative numbers."})

    def inverse(self, values, symmetry):
        (index, restored), = super().inverse(values, symmetry)
        return [(index, np.asarray(restored))]
'''


def setup_of_another(folder, **head):
    values = tiny_config()
    values["heads"] = {"sign": {"kind": "odd", **head}}
    values["training"] |= {
        "iterations": 20, "validate_every": 10, "checkpoint_every": 10, "score": "sign/wrong",
        "snapshot_every": 20,
    }
    return write_setup(folder, values)


def test_a_head_with_a_loss_of_its_own_is_one_file(packages, em_blocks, raw, tmp_path):
    distribution(packages, "odds", HEAD, heads="odd = odds:OddHead", losses="hinge = odds:Hinge")
    setup = setup_of_another(tmp_path / "odd", loss={"kind": "hinge", "margin": 0.5}, weight=2)
    assert "Best checkpoint" in em_blocks("train", setup)
    record = json.loads((setup / "checkpoints" / "record.json").read_text())
    assert record["config"]["heads"]["sign"]["loss"] == {"kind": "hinge", "margin": 0.5}
    wrong = [entry["sign/wrong"] for entry in record["history"]]
    assert len(wrong) == 2 and record["best"]["sign/wrong"] == min(wrong), "the lower wins"
    assert (setup / "training/snapshots/20.png").exists()

    config = tmp_path / "predict.json"
    config.write_text(json.dumps({
        "kind": "predict", "run": "odd", "raw": "raw.zarr/raw", "setup": "odd", "output": "out/p.zarr",
        "block_shape": [8, 16, 16], "num_workers": 2, "test_time_augmentation": "mirrors",
        "voxel_size_tolerance": 10, "normalization": "dtype",
    }))
    report = json.loads(em_blocks("predict", config, "--json"))
    assert report["blocks"]["done"] == report["blocks"]["computed"] == 24
    found = Volume.open(str(tmp_path / "out/p.zarr/sign"))
    assert found.dtype == np.int8 and found.attributes["odd"] is True and found.scale == 50
    values = found.read(found.box)
    assert len(np.unique(values)) > 5 and np.abs(values).max() <= 50
    said = em_blocks("predict", config, "--set", "outputs.sign.dtype=uint8", code=2)
    assert "stores the head 'sign' as uint8, which has no negative numbers" in said


def test_storage_formats_of_another_package_are_like_any_other(packages, em_blocks, raw, tmp_path):
    distribution(packages, "boxes", FORMATS, formats="lz4 = boxes:Lz4\nnpy = boxes:Npy")
    configs = {}
    for format, given in {"lz4": "raw.zarr/raw", "npy": "lz4.zarr/p/s1"}.items():
        configs[format] = tmp_path / f"{format}.json"
        configs[format].write_text(json.dumps({
            "kind": "downsample", "run": format, "input": given, "output": f"{format}.zarr/p",
            "method": "mean", "factors": [[1, 2, 2]], "chunk_shape": [5, 10, 10], "format": format,
            "block_shape": [10, 10, 10], "num_workers": 2,
        }))
    refused = em_blocks("downsample", configs["lz4"], "--set", "format=lz5", code=2)
    assert "got 'lz5', input should be 'zarr', 'zarr3', 'precomputed', 'lz4' or 'npy'" in refused

    for config in configs.values():
        em_blocks("downsample", config)
    compressor = json.loads((tmp_path / "lz4.zarr/p/s1/.zarray").read_text())["compressor"]
    assert compressor["cname"] == "lz4"
    half = np.rint(raw.reshape(20, 15, 2, 25, 2).mean(axis=(2, 4), dtype=float)).astype("uint8")
    np.testing.assert_array_equal(np.load(tmp_path / "npy.zarr/p/s0/5_10_20.npy"), half[5:10, 10:, 20:])
    told = em_blocks("view", "lz4.zarr/p", "npy.zarr/p/s1", code=2)
    assert "npy.zarr/p/s1 is stored in the format npy, which neuroglancer cannot show" in told
    (layer,) = json.loads(em_blocks("view", "lz4.zarr/p", "--json"))["layers"]
    assert layer["source"]["url"].startswith("zarr2://")

    damaged = tmp_path / "npy.zarr/p/s1/0_0_0.npy"
    damaged.write_bytes(b"")
    assert "1 damaged" in em_blocks("verify", configs["npy"], code=1)
    for format in ("npy", "lz4"):  # the reader first: it is known by its input
        em_blocks("forget", configs[format], "--yes")
        assert not [p for p in (tmp_path / f"{format}.zarr/p/s0").rglob("*") if p.is_file()]


SOURCE_IMPORTS = '''
"""A source of voxels."""

import math
from contextlib import contextmanager
from typing import Literal

import numpy as np

from em_blocks.config import LocalPath, Shape3
from em_blocks.errors import ConfigError
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.sources import Source, SourceHeader


'''


def test_a_source_of_another_package_is_the_one_file_of_the_page(packages, em_blocks, tmp_path):
    page = (Path(__file__).parents[1] / "docs/ingest.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    distribution(packages, "rawbytes", SOURCE_IMPORTS + code, sources="raw_bytes = rawbytes:RawBytes")
    values = np.random.default_rng(0).integers(0, 255, (6, 7, 8)).astype(np.uint8)
    (tmp_path / "values.bin").write_bytes(values.tobytes())
    source = {"type": "raw_bytes", "path": "values.bin", "shape": [6, 7, 8]}
    config = tmp_path / "ingest.json"
    config.write_text(json.dumps({
        "kind": "ingest", "run": "bytes", "source": source, "output": "a.zarr/raw",
        "voxel_size": [40, 4.6, 4.6], "chunk_shape": [4, 8, 8], "block_shape": [4, 8, 8],
    }))
    told = em_blocks("ingest", config, "--set", "source.shape=[8,7,8]", code=2)
    assert "does not have 448 bytes" in told
    told = em_blocks("ingest", config, "--set", "source.type=raw_bits", code=2)
    assert "`type` must be one of images" in told and "raw_bytes" in told
    em_blocks("ingest", config)
    volume = Volume.open(str(tmp_path / "a.zarr/raw"))
    assert volume.voxel_size == (40, 4.6, 4.6)
    np.testing.assert_array_equal(volume[...], values)
