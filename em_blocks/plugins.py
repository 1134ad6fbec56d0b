"""Named implementations: those of this package, and those that other packages register."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from em_blocks.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Registry:
    """Find classes by name, and import one only when it is asked for.

    Another package adds a name by an entry point of the group, for example in its pyproject.toml::

        [project.entry-points."em_blocks.tasks"]
        bright = "my_package.bright:Bright"

    Parameters
    ----------
    group : str
        Group of entry points, for example "em_blocks.tasks".
    builtin : mapping of str to str
        ``"module:Class"`` of this package, by name; they come first.
    base : str, optional
        ``"module:Class"`` that whatever another package registers must be a subclass of.
    """

    def __init__(self, group: str, builtin: Mapping[str, str], base: str | None = None):
        self.group = group
        self.builtin = dict(builtin)
        self.base = base

    def names(self) -> list[str]:
        """Return all names, those of this package first; imports none of the classes."""
        return [*self.builtin, *(name for name in self._foreign if name not in self.builtin)]

    def get(self, name: str) -> Any:
        """Import and return what is registered as `name`.

        Raises
        ------
        ConfigError
            If the name is unknown, two packages register it, or its package cannot be imported.
        """
        found = self._foreign.get(name, [])
        if name in self.builtin and not found:
            return _load(self.builtin[name])
        if not found:
            raise ConfigError(
                f"There is no {name!r} in {self.group}; there are {', '.join(self.names())}. Other "
                f"packages add names by entry points of the group {self.group!r}."
            )
        if name in self.builtin or len(found) > 1:
            own = ["em_blocks"] if name in self.builtin else []
            raise ConfigError(
                f"The name {name!r} of {self.group} is registered by "
                f"{' and '.join([*own, *map(_package, found)])}, so it does not say which one a config "
                "means. Uninstall one of these packages, or rename its entry point."
            )
        return self._checked(found[0])

    def origin(self, name: str) -> str:
        """Return the package that registers `name`."""
        return "em_blocks" if name in self.builtin else _package(self._foreign[name][0])

    @cached_property
    def _foreign(self) -> dict[str, list[EntryPoint]]:
        """Entry points of other packages by name, each value once."""
        from importlib.metadata import entry_points

        found: dict[str, dict[str, EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, {})[point.value] = point
        return {name: sorted(found[name].values(), key=_package) for name in sorted(found)}

    def _checked(self, point: EntryPoint) -> Any:
        """Load what an entry point names; any error of its import is the package's."""
        where = f"The entry point {point.name!r} ({point.value}) of the package {_package(point)}"
        try:
            value = point.load()
        except Exception as error:
            raise ConfigError(
                f"{where} cannot be imported ({type(error).__name__}: {error}), so the "
                f"{self.group.removeprefix('em_blocks.').removesuffix('s')} {point.name!r} is not "
                "available. Repair or uninstall that package."
            ) from error
        base = _load(self.base) if self.base else object
        if not (isinstance(value, type) and issubclass(value, base)):
            raise ConfigError(
                f"{where} is {value!r}, but a subclass of {base.__module__}.{base.__qualname__} is "
                "needed. Repair or uninstall that package."
            )
        return value


def _load(value: str) -> Any:
    module, name = value.split(":")
    return getattr(importlib.import_module(module), name)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
