"""Imports only point down, and importing em_blocks loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down; a module may import its own layer and those below.
LAYERS = [
    {"pipelines", "workers", "setups", "cli"},
    {"runtime"},
    {"tasks"},
    {"training"},
    {"nets"},
    {"volumes"},
    {"db"},
    {"kernels"},
    {"geometry", "config", "errors", "json_text"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Kernels know arrays. Everything that knows bytes, blocks or processes is someone else's work.
NOT_IN_KERNELS = {"pathlib", "os", "daisy", "pymongo", "tensorstore", "torch", "zarr", "h5py"}
HEAVY = ("torch", "gunpowder", "pymongo", "daisy", "scipy", "tensorstore")


def sources():
    """Every module of em_blocks as (part, file): those of the top-level folders too."""
    for file in sorted((ROOT / "em_blocks").rglob("*.py")):
        yield file.relative_to(ROOT / "em_blocks").parts[0].removesuffix(".py"), file
    for folder in ("pipelines", "workers", "setups"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield folder, file


MODULES = [(part, file) for part, file in sources() if part != "__init__"]


def imported(file):
    """Names of all modules that a file imports, also inside of functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the layer"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_of_em_blocks(file):
    """The parts of em_blocks that a file imports from."""
    found = {name.split(".")[1] for name in imported(file) if name.startswith("em_blocks.")}
    # The rest are names that em_blocks itself defines, like its version.
    return found & LEVEL.keys()


def outside(file):
    """Top-level packages, other than em_blocks, that a file imports."""
    return {name.split(".")[0] for name in imported(file)} - {"em_blocks"}


def name_of(value):
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def test_every_part_has_a_layer():
    assert {part for part, _ in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize(("part", "file"), MODULES, ids=name_of)
def test_imports_point_down(part, file):
    above = {used for used in parts_of_em_blocks(file) if LEVEL[used] < LEVEL[part]}
    assert not above, f"{part} must not know {above}"


def test_only_db_imports_pymongo():
    users = {part for part, file in MODULES if "pymongo" in outside(file)}
    assert users <= {"db"}


def test_kernels_know_only_arrays():
    for part, file in MODULES:
        if part == "kernels":
            assert not outside(file) & NOT_IN_KERNELS, file
            assert parts_of_em_blocks(file) <= {"kernels", "errors"}, file


def test_networks_know_neither_files_nor_databases():
    for part, file in MODULES:
        if part == "nets":
            assert not outside(file) & {"pathlib", "os", "pymongo", "tensorstore", "zarr"}, file
            assert parts_of_em_blocks(file) <= {"nets", "kernels", "errors"}, file


def loaded_by(statement):
    """Top-level packages in a fresh interpreter after `statement`."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_em_blocks_is_cheap():
    assert not loaded_by("import em_blocks") & set(HEAVY)


def test_asking_for_the_status_of_a_run_needs_no_torch():
    loaded = loaded_by("import em_blocks.cli.main, em_blocks.cli.status, em_blocks.tasks.predict")
    assert not loaded & {"torch", "gunpowder", "daisy"}


def test_predicting_needs_nothing_of_the_extra_for_training():
    loaded = loaded_by(
        "import em_blocks.pipelines.demo, em_blocks.pipelines.predict_blockwise, "
        "em_blocks.workers.predict_worker, em_blocks.nets.inference, em_blocks.training.setup, "
        "em_blocks.training.scores"
    )
    assert not loaded & {"dask", "gunpowder", "tensorboardX", "waterz", "zarr"}
