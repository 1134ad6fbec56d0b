"""Packages of somebody else: one file in a folder, with its entry points."""

import os
import sys


def distribution(folder, name, source, **entry_points):
    """Install a package of one file, as pip would, into `folder`.

    Parameters
    ----------
    name : str
        Of the package and its only module.
    source : str
        What the module holds.
    entry_points : str
        Lines ``name = module:Class`` by group without its prefix, e.g. ``tasks="a = m:A"``.
    """
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (f"[em_blocks.{group}]\n{lines}\n" for group, lines in entry_points.items())
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


def visible(folder):
    """Environment in which Python finds the packages of `folder`."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PATH": path}
