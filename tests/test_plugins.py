"""Names that this package and others register."""

import importlib
import sys

import pytest

from em_blocks.errors import ConfigError
from em_blocks.plugins import Registry
from foreign import distribution

BUILTIN = {"frame": "em_blocks.geometry:Frame", "box": "em_blocks.geometry:Box"}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Folder of packages that this process finds."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_a_builtin_name_gives_its_class():
    from em_blocks.geometry import Frame

    registry = Registry("em_blocks.shapes", BUILTIN)
    assert registry.get("frame") is Frame
    assert registry.names() == ["frame", "box"]
    assert registry.origin("frame") == "em_blocks"


def test_another_package_adds_a_name_after_those_of_this_one(packages):
    distribution(packages, "one_shape", "class Ball: pass\n", shapes="ball = one_shape:Ball")
    registry = Registry("em_blocks.shapes", BUILTIN)
    assert registry.names() == ["frame", "box", "ball"]
    assert "one_shape" not in sys.modules  # names alone import nothing
    assert registry.get("ball").__name__ == "Ball"
    assert registry.origin("ball") == "one_shape"


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'cone'.*frame, box.*'em_blocks.shapes'"):
        Registry("em_blocks.shapes", BUILTIN).get("cone")


@pytest.mark.parametrize("source", ["import no_such_module", "1 / 0", "class Other: pass"])
def test_a_package_that_is_broken_is_named(packages, source):
    distribution(packages, "broken_shape", source, shapes="ball = broken_shape:Ball")
    registry = Registry("em_blocks.shapes", BUILTIN)
    with pytest.raises(ConfigError, match=r"'ball' \(broken_shape:Ball\) of the package broken_shape"):
        registry.get("ball")
    assert registry.get("box")  # others are not touched


def test_a_name_of_two_packages_is_refused(packages):
    for name in ("first_shape", "second_shape"):
        distribution(packages, name, "class Ball: pass\n", shapes=f"ball = {name}:Ball")
    with pytest.raises(ConfigError, match=r"'ball'.*first_shape and second_shape.*rename"):
        Registry("em_blocks.shapes", BUILTIN).get("ball")


def test_a_package_cannot_replace_a_name_of_this_one(packages):
    distribution(packages, "my_frame", "class Frame: pass\n", shapes="frame = my_frame:Frame")
    with pytest.raises(ConfigError, match=r"'frame'.*em_blocks and my_frame"):
        Registry("em_blocks.shapes", BUILTIN).get("frame")


def test_what_is_no_subclass_of_the_base_is_refused(packages):
    distribution(packages, "no_model", "class Ball: pass\n", shapes="ball = no_model:Ball")
    with pytest.raises(ConfigError, match=r"no_model.*subclass of em_blocks.config.StrictModel"):
        Registry("em_blocks.shapes", {}, base="em_blocks.config:StrictModel").get("ball")
