"""The front door: what `import em_blocks` offers, and the notebook of docs/python.md."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import em_blocks
from blockwise import FRAME, add_one, make_raw, store_of
from em_blocks.errors import ConfigError, RefusedError
from extracting import blobs, extraction, predictions

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
HEAVY = {"torch", "pymongo", "tensorstore", "pydantic", "rich", "daisy", "pyarrow"}


def python(code, folder, timeout_s=280):
    """Run code in a fresh interpreter in a folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- names ------------------------------------------------------------------------------------


def test_every_name_is_there_and_dir_knows_it():
    assert dir(em_blocks) == sorted(em_blocks.__all__)
    for name in em_blocks.__all__:
        assert getattr(em_blocks, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'predictt'"):
        _ = em_blocks.predictt


def test_editors_see_the_names_that_are_imported_late():
    tree = ast.parse((ROOT / "em_blocks/__init__.py").read_text())
    seen = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(em_blocks.__all__) - {"__version__"} <= seen


def test_looking_at_the_names_imports_nothing_heavy(tmp_path):
    loaded = python("import sys, em_blocks; dir(em_blocks); print(*sys.modules)", tmp_path).split()
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


# -- the page ---------------------------------------------------------------------------------

IN_A_THREAD = """
import threading
failed = []
def notebook():
    try:
        exec(compile(CODE, "notebook", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        failed.append(error)
thread = threading.Thread(target=notebook)
thread.start()
thread.join()
if failed:
    raise failed[0]
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_the_notebook_of_the_page_runs(tmp_path, where):
    code = EXAMPLES[0]
    assert len(code.splitlines()) <= 12
    head = "import matplotlib; matplotlib.use('agg')\n"
    said = python(head + (code if where == "main" else f"CODE = {code!r}{IN_A_THREAD}"), tmp_path)
    assert "raw: (16, 192, 192) uint8, voxel size (40.0, 4.0, 4.0) nm" in said
    raw, truth = (em_blocks.open(tmp_path / f"work/volume.zarr/{name}") for name in ("raw", "neurons"))
    affinities = em_blocks.open(tmp_path / "work/affinities.zarr/affinities")
    segments = em_blocks.open(tmp_path / "work/segments.zarr/segments/0.8")
    assert affinities.shape == segments.shape == raw.shape and affinities[...].std() > 20
    # The segments are those of neurons: most of a segment lies in one of them.
    ids, inside = np.unique(np.stack([segments[...], truth[...]]).reshape(2, -1), axis=1,
                            return_counts=True)
    best = {id: inside[ids[0] == id].max() for id in np.unique(ids[0]) if id}
    assert len(best) > 5 and sum(best.values()) > 0.7 * inside[ids[0] != 0].sum()
    assert (tmp_path / "work/segments.png").stat().st_size > 10_000


RUN_IT = """
em.generate("work/volume.zarr", shape=(10, 96, 160), seed=1)
task = Bright(raw="work/volume.zarr/raw", output="work/bright.zarr")
try:
    em.run(task, progress=False)
except em.EmBlocksError as error:
    print("refused:", error)
report = em.run(task, serial=True, progress=False)
print(report)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_the_task_of_the_page_runs_where_it_is_defined(tmp_path, where):
    code = EXAMPLES[1] + RUN_IT
    said = python(code if where == "main" else f"CODE = {code!r}{IN_A_THREAD}", tmp_path)
    assert said.startswith("refused: ") and "serial=True" in said  # workers could not import it
    assert "bright (bright): done, 1 of 1 blocks" in said
    raw, bright = (em_blocks.open(tmp_path / "work" / name)[...]
                   for name in ("volume.zarr/raw", "bright.zarr/mask"))
    np.testing.assert_array_equal(bright, raw >= 128)
    assert 0 < bright.mean() < 1


# -- tasks in Python --------------------------------------------------------------------------


def test_a_class_knows_its_kind_and_names_its_run_by_the_output(tmp_path):
    task = em_blocks.Clean(labels="a.zarr/seg", output=tmp_path / "brain.zarr/cleaned")
    assert (task.kind, task.run) == ("clean", "brain_cleaned")
    named = em_blocks.Clean(labels="a.zarr/seg", output=tmp_path / "brain.zarr/cleaned", run="mine")
    assert named.run == "mine" and named == em_blocks.Clean.from_dict(named.model_dump())


def test_a_config_still_has_to_say_its_kind_and_run(tmp_path):
    for missing in ("kind", "run"):
        values = {"kind": "clean", "run": "r", "labels": "a.zarr/seg", "output": "b.zarr/seg"}
        del values[missing]
        with pytest.raises(ConfigError, match=f"the key '{missing}' is missing"):
            em_blocks.Clean.from_dict(values)


def test_a_wrong_argument_is_refused_in_a_paragraph():
    with pytest.raises(ConfigError, match=r"^Clean cannot be used: .*'labels' is miss.*'blobs' is unkn"):
        em_blocks.Clean(blobs=1, output="b.zarr/seg")


def test_a_config_is_loaded_by_its_kind(tmp_path):
    path = tmp_path / "clean.json"
    values = {"kind": "clean", "run": "r", "labels": "a.zarr/seg", "output": "b.zarr/seg"}
    path.write_text(json.dumps(values))
    task = em_blocks.load(path, "min_size=7")
    assert isinstance(task, em_blocks.Clean) and task.min_size == 7
    assert task.labels == str(tmp_path / "a.zarr/seg")


# -- runs -------------------------------------------------------------------------------------


def test_a_report_opens_its_outputs_and_can_be_read(tmp_path):
    raw = make_raw(tmp_path)
    report = em_blocks.run(add_one(raw, tmp_path), serial=True, progress=False)
    assert report.ok and report.state == "done" and report.reason is None
    found = report.outputs["sum"]
    assert list(report.outputs) == ["sum"] and found.frame == FRAME
    np.testing.assert_array_equal(found, raw[...].astype("uint16") + 1)
    assert repr(report).splitlines()[0].startswith("sum (add_one): done, 30 of 30 blocks, ")
    assert f"sum: {found.path}" in repr(report)
    assert "<td>30 of 30 blocks</td>" in report._repr_html_() and found.path in report._repr_html_()


def test_a_run_that_fails_says_so_and_goes_on_later(tmp_path, capfd):
    raw = make_raw(tmp_path)
    task = add_one(raw, tmp_path, faults={"1/2/3": "raise"}, max_retries=0)
    report = em_blocks.run(task, serial=True, progress=False)
    assert not report.ok and report.state == "failed"
    assert "this block is poison" in repr(report) and "this block is poison" in report._repr_html_()
    mended = add_one(raw, tmp_path)
    assert not em_blocks.run(mended, serial=True, progress=False).ok  # it stays quarantined
    again = em_blocks.run(mended, serial=True, progress=False, retry=True)
    assert again.ok and again.steps[0].blocks["computed"] == 1
    assert "Traceback" not in capfd.readouterr().err


def test_several_tasks_run_one_after_the_other_until_one_fails(tmp_path):
    raw = make_raw(tmp_path)
    first = add_one(raw, tmp_path, run="first", output=str(tmp_path / "first.zarr"))
    wrong = add_one(raw, tmp_path, run="wrong", output=str(tmp_path / "wrong.zarr"), max_retries=0,
                    faults={"0/0/0": "raise"})
    third = add_one(raw, tmp_path, run="third", output=str(tmp_path / "third.zarr"))
    report = em_blocks.run([first, wrong, third], serial=True, progress=False)
    assert [step.run for step in report.steps] == ["first", "wrong"] and not report.ok
    assert report.outputs["sum"].path == str(tmp_path / "wrong.zarr/sum")
    assert not (tmp_path / "third.zarr").exists()


def test_rows_of_the_database_are_outputs_too(tmp_path):
    task = extraction(predictions(tmp_path, blobs()), block_shape=(6, 20, 25))
    report = em_blocks.run(task, serial=True, progress=False)
    (name,) = report.outputs
    found = report.outputs[name]
    assert report.ok and found.pre.shape == found.post.shape == (len(found), 3)
    with store_of(task) as store:
        assert len(found) == store.database["synapses"].count_documents({"run": "syn"}) > 10


# -- data to try -------------------------------------------------------------------------------


def test_a_generated_volume_is_never_written_over_another(tmp_path):
    made = em_blocks.generate(tmp_path / "v.zarr", shape=(4, 64, 64), seed=1)
    np.testing.assert_array_equal(em_blocks.open(tmp_path / "v.zarr/raw"), made.raw)
    with pytest.raises(RefusedError, match="is not overwritten"):
        em_blocks.generate(tmp_path / "v.zarr", shape=(4, 64, 64), seed=2)


def test_shipped_setups_are_found_by_name():
    assert (em_blocks.shipped_setup("affinities") / "network.py").exists()
    with pytest.raises(ConfigError, match="no setup 'affinity'; em_blocks brings affinities, "):
        em_blocks.shipped_setup("affinity")
