"""A wheel and an sdist hold everything, and work outside of the checkout."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from blockwise import add_one, make_raw, run
from em_blocks.extras import EXTRAS

ROOT = Path(__file__).parents[1]
MADE_ANYWHERE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
MADE_AT_THE_TOP = {"build", "dist", "data", "runs", "demo"}
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
# Setups of the checkout that have been trained; one that is being made has no weights yet.
SETUPS = sorted(path.parents[1].name for path in ROOT.glob("setups/*/checkpoints/best.safetensors"))


def not_source(folder, names):
    """Names of a folder of the checkout that are no sources."""
    return MADE_ANYWHERE(folder, names) | (MADE_AT_THE_TOP if Path(folder) == ROOT else set())


def call(*command, cwd):
    """Run a command; its output, or a failure that shows it."""
    # PYTHONPATH would show the checkout to an environment that must do without.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def build(source, kind, target):
    """Build ``sdist`` or ``wheel`` of a source folder; its path and what the build printed."""
    output = call(sys.executable, "-c", BUILD.format(kind), target, cwd=source)
    return target / output.split()[-1], output


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources, so that no earlier build shines through."""
    folder = tmp_path_factory.mktemp("source") / "em_blocks"
    shutil.copytree(ROOT, folder, ignore=not_source)
    return folder


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return build(source, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the unpacked sdist: what is missing there is missing here."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist[0]) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build(unpacked, "wheel", folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the commands of a fresh environment with the wheel in it."""
    home = tmp_path_factory.mktemp("installed") / "env"
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    call(
        sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "--no-deps",
        "--no-index", wheel[0], cwd=home,
    )
    # The dependencies are those of this environment. A .pth file adds its site-packages without
    # the .pth files in there, so its editable em_blocks stays out.
    (site / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    return home / "bin"


def test_the_wheel_holds_setups_with_weights_and_configs_with_schemas(wheel):
    names = set(zipfile.ZipFile(wheel[0]).namelist())
    wanted = {f"em_blocks/configs/{path.name}" for path in ROOT.glob("configs/*.json")}
    for setup in SETUPS:
        folder = f"em_blocks/setups/{setup}"
        wanted |= {f"{folder}/{name}" for name in ("config.json", "train.py")}
        wanted |= {f"{folder}/{path.name}" for path in ROOT.glob(f"setups/{setup}/network.py")}
        wanted.add(f"{folder}/checkpoints/best.safetensors")
    wanted |= {f"em_blocks/{path.relative_to(ROOT)}" for path in ROOT.glob("pipelines/*.py")}
    wanted |= {f"em_blocks/{path.relative_to(ROOT)}" for path in ROOT.glob("workers/*.py")}
    page = ROOT / "em_blocks/runtime/dashboard/static"
    wanted |= {str(path.relative_to(ROOT)) for path in page.iterdir()}
    assert wanted <= names, wanted - names


def test_the_wheel_holds_every_file_of_the_library(wheel, source):
    """Pages and pictures too, which setup.py must name."""
    names = set(zipfile.ZipFile(wheel[0]).namelist())
    files = (path for path in (source / "em_blocks").rglob("*") if path.is_file())
    wanted = {str(path.relative_to(source)) for path in files}
    assert wanted <= names, wanted - names


def test_the_wheel_holds_nothing_but_em_blocks(wheel):
    names = zipfile.ZipFile(wheel[0]).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"em_blocks"}
    assert not [name for name in names if name.endswith(".pt") or "checkpoint_" in name]


def test_the_sdist_holds_the_tests_and_the_pinned_versions(sdist):
    with tarfile.open(sdist[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for file in ("constraints.txt", "Makefile", "pyproject.toml", "README.md", "LICENSE"):
        assert file in names
    assert {"tests/conftest.py", "tests/test_packaging.py"} <= names


def test_the_build_warns_of_nothing(wheel, sdist):
    for _, output in (wheel, sdist):
        assert "Warning" not in output, output


@pytest.mark.parametrize("command", ["em-blocks", "em-blocks status", "predict_blockwise.py"])
def test_commands_run_outside_of_the_checkout(installed, command, tmp_path):
    script, *verb = command.split()
    text = call(installed / script, *verb, "--help", cwd=tmp_path)
    assert "Usage" in text


def test_the_installed_package_is_used_and_finds_its_setups(installed, tmp_path):
    code = (
        "import em_blocks.setups, pathlib, em_blocks.pipelines.demo\n"
        "print(em_blocks.__file__)\n"
        "print(*sorted(p.parent.name for p in"
        " pathlib.Path(em_blocks.setups.__file__).parent.glob('*/config.json')))"
    )
    package, setups = call(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(package).is_relative_to(installed.parent)
    assert set(setups.split()) >= set(SETUPS)


# -- extras -----------------------------------------------------------------------------------

BLOCKER = '''
import sys


class Missing:
    """Finds none of the packages of the extras, as where they are not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
'''


def described():
    """What setup.py tells setuptools."""
    told = {}
    code = compile((ROOT / "setup.py").read_text(), "setup.py", "exec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setuptools.setup", told.update)
        patch.chdir(ROOT)
        exec(code, {"__file__": str(ROOT / "setup.py"), "__name__": "setup"})
    return told


@pytest.fixture
def login_node(tmp_path):
    """Runs commands where only the base requirements can be imported."""
    modules = sorted({module for modules in EXTRAS.values() for module in modules})
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(BLOCKER.format(names=set(modules)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}

    def run(*command, code=0):
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_every_extra_is_known_by_its_modules():
    told = described()
    distributions = importlib.metadata.packages_distributions()
    base = {canonical(requirement) for requirement in told["install_requires"]}
    for extra, modules in EXTRAS.items():
        wanted = {canonical(requirement) for requirement in told["extras_require"][extra]}
        wanted -= {"dask", "funlib-persistence"}  # whose module is that of daisy's requirements too
        found = {canonical(name) for module in modules for name in distributions.get(module, [])}
        of_others = {"train": ("predict", "evaluate"), "onnx": ("predict",)}.get(extra, ())
        inherited = {module for other in of_others for module in EXTRAS[other]}
        assert wanted - {canonical(name) for name in inherited} <= found, extra
        assert not found & base, extra
    everything = set(told["extras_require"]["all"])
    assert all(everything >= set(told["extras_require"][extra]) for extra in (*EXTRAS, "local"))


def canonical(requirement):
    return re.split(r"[<>=!\[; ]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_runs_are_looked_at_with_the_base_requirements_alone(login_node, tmp_path):
    command = Path(sys.executable).with_name("em-blocks")
    for arguments in (["--help"], ["status", "--help"], ["plan", "--help"], ["predict", "--help"],
                      ["segment", "--help"], ["verify", "--help"], ["evaluate", "--help"]):
        assert "Usage" in login_node(command, *arguments)
    code = "from em_blocks.tasks import TASKS\nfor kind in TASKS.names(): TASKS.get(kind)"
    login_node(sys.executable, "-c", code)
    task = add_one(make_raw(tmp_path), tmp_path)
    assert run(task).ok
    config = tmp_path / "status.json"
    config.write_text(json.dumps({
        "kind": "predict", "run": task.run, "raw": task.raw, "setup": ".", "output": task.output,
        "block_shape": task.block_shape,
    }))
    status = json.loads(login_node(command, "status", config, "--json"))
    assert status["blocks"]["done"] == status["blocks"]["total"] == 30


def test_a_missing_extra_is_named_in_one_line(login_node, tmp_path, setup_folder):
    raw = make_raw(tmp_path)
    config = tmp_path / "predict.json"
    config.write_text(json.dumps({
        "kind": "predict", "run": "r", "raw": raw.path, "setup": str(setup_folder),
        "output": "p.zarr", "block_shape": [6, 12, 12],
    }))
    command = Path(sys.executable).with_name("em-blocks")
    line = "torch is not installed, which this needs: pip install 'em_blocks[predict]'.\n"
    assert login_node(command, "predict", config, code=2) == f"Error: {line}"
    said = login_node(sys.executable, "-c", f"import em_blocks; em_blocks.run({str(config)!r})", code=1)
    assert said.endswith(f"ConfigError: {line}")
