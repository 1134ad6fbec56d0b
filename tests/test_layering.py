"""Imports only point down, and importing em_blocks loads nothing heavy."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down; a module may import its own layer and those below.
LAYERS = [
    {"pipelines", "workers", "setups", "cli"},
    {"api"},
    {"runtime"},
    {"evaluation", "export"},
    {"tasks"},
    {"training"},
    {"models"},
    {"nets"},
    {"outputs"},
    {"volumes"},
    {"db"},
    {"kernels"},
    {"by_kind", "geometry", "config", "plugins", "extras", "errors", "json_text"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The same order for the packages within a layer; those of one line do not import each other.
ROOMS = {
    "kernels": [
        {"plots"},
        {"evaluation", "connectome", "skeletons", "synthetic", "neuroglancer"},
        {"synapses", "instances", "objects"},
        {"components"},
        {"segmentation", "transforms", "images", "linking"},
    ],
    "runtime": [
        {"dashboard"},
        {"planning", "monitoring"},
        {"scheduler"},
        {"worker"},
        {"runs"},
        {"launchers", "protocol"},
    ],
}
MOST_FILES = 15  # of a package, its __init__ apart
MOST_LINES = 400  # of a module
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


def package_of(file):
    """The package that a module lies in, as a tuple of names: ("em_blocks", "kernels", "plots")."""
    return file.relative_to(ROOT).parent.parts


def packages_used(file):
    """Packages of em_blocks that a file imports from, its own one apart."""
    found = set()
    for name in imported(file):
        parts = name.split(".")
        while len(parts) > 1 and not ROOT.joinpath(*parts).with_suffix(".py").exists():
            parts.pop()
        if parts[0] == "em_blocks" and len(parts) > 2:
            found.add(tuple(parts[:-1]))
    return found - {package_of(file)}


def test_no_package_depends_on_one_that_depends_on_it():
    graph = {}
    for _, file in MODULES:
        if file.is_relative_to(ROOT / "em_blocks"):
            graph.setdefault(package_of(file), set()).update(packages_used(file))
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("layer", ROOMS)
def test_the_packages_of_a_layer_have_an_order(layer):
    level = {name: level for level, names in enumerate(ROOMS[layer]) for name in names}
    for part, file in MODULES:
        if part == layer and len(package_of(file)) > 2:
            own = package_of(file)[2]
            used = {package[2] for package in packages_used(file)
                    if package[:2] == ("em_blocks", layer) and len(package) > 2} - {own}
            assert all(level[name] > level[own] for name in used), (file, used)


def test_packages_are_small_and_say_what_they_are_for():
    for init in (ROOT / "em_blocks").rglob("__init__.py"):
        assert len(list(init.parent.glob("*.py"))) - 1 <= MOST_FILES, init.parent
        assert ast.get_docstring(ast.parse(init.read_text())), init


def test_no_module_is_long():
    lines = {file: len(file.read_text().splitlines()) for file in (ROOT / "em_blocks").rglob("*.py")}
    assert {file: n for file, n in lines.items() if n > MOST_LINES} == {}


def test_only_db_imports_pymongo():
    users = {part for part, file in MODULES if "pymongo" in outside(file)}
    assert users <= {"db"}


def test_kernels_know_only_arrays():
    for part, file in MODULES:
        if part == "kernels":
            assert not outside(file) & NOT_IN_KERNELS, file
            assert parts_of_em_blocks(file) <= {"kernels", "geometry", "errors"}, file


def test_networks_know_neither_files_nor_databases():
    for part, file in MODULES:
        if part == "nets":
            assert not outside(file) & {"pathlib", "os", "pymongo", "tensorstore", "zarr"}, file
            allowed = {"nets", "kernels", "geometry", "errors", "config", "plugins", "by_kind"}
            assert parts_of_em_blocks(file) <= allowed, file


def loaded_by(statement):
    """Top-level packages in a fresh interpreter after `statement`."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_em_blocks_is_cheap():
    assert not loaded_by("import em_blocks") & set(HEAVY)


def test_asking_for_the_status_of_a_run_needs_no_torch():
    loaded = loaded_by(
        "import em_blocks.cli.main, em_blocks.cli.runs.status, em_blocks.tasks.prediction.predict"
    )
    assert not loaded & {"torch", "gunpowder", "daisy"}


def test_predicting_needs_nothing_of_the_extra_for_training():
    loaded = loaded_by(
        "import em_blocks.pipelines.demo, em_blocks.pipelines.predict_blockwise, "
        "em_blocks.workers.predict_worker, em_blocks.nets.inference, em_blocks.models.setup, "
        "em_blocks.models.scores.voxels"
    )
    assert not loaded & {"dask", "gunpowder", "tensorboardX", "waterz", "zarr"}
