"""Neurons from text in SWC format, as programs write it in fact.

The format was never fixed. In use are columns parted by blanks, tabs or commas, with or without a
line of names above, ids such as ``1.0``, and roots whose parent is -1 or a node 0 that does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import networkx as nx

_COLUMNS = "id type x y z radius parent"
# Above, not every whole number is a float, so that 1e17 could be any of several ids.
_EXACT = 2**53

Position = tuple[float, float, float]


def parse_swc(text: str, *, unit_nm: float | Sequence[float]) -> nx.Graph:
    """One neuron from a file in SWC format.

    Parameters
    ----------
    text : str
        Lines of ``id type x y z radius parent`` in any order, parent -1 for a root, or 0 where no
        node is called so; ``#`` starts a comment. A neuron may be in several pieces, so there may be
        several roots.
    unit_nm : float or (3,) float
        nm per unit of the positions, for all axes or (z, y, x): the format does not say. Often 1 or
        1000, or the size of voxels.

    Returns
    -------
    networkx.Graph
        A forest; nodes have their id as name and a ``position``, nm (z, y, x).

    Raises
    ------
    ValueError
        Naming the line that cannot be understood.
    """
    scale = (unit_nm,) * 3 if isinstance(unit_nm, (int, float)) else tuple(unit_nm)
    graph, parents = nx.Graph(), {}
    for number, fields in _rows(text):
        node, position, parent = _node(fields, number)
        if node in graph:
            raise ValueError(f"line {number}: the id {node} was given before")
        graph.add_node(node, position=tuple(s * p for s, p in zip(scale, position, strict=True)))
        parents[node] = parent, number
    roots = {-1} if 0 in graph else {-1, 0}
    for node, (parent, number) in parents.items():
        if parent in roots:
            continue
        if parent not in graph:
            raise ValueError(f"line {number}: there is no node {parent}, which is the parent of {node}")
        graph.add_edge(node, parent)
    _check_forest(graph, parents, roots)
    return graph


def _rows(text: str):
    """Number and fields of every line that holds a node."""
    above = True  # only above all nodes there may be names
    for number, line in enumerate(text.splitlines(), start=1):
        fields = _fields(line.partition("#")[0].strip(" \t\ufeff"))
        if not fields:
            continue
        if not (above and _are_names(fields, number)):
            yield number, fields
        above = False


def _fields(line: str) -> list[str]:
    """Split at commas or semicolons if there are any, without mistaking decimal commas for them."""
    mark = next((mark for mark in ",;" if mark in line), None)
    return line.split() if mark is None else [field.strip() for field in line.split(mark)]


def _are_names(fields: list[str], number: int) -> bool:
    """Tell whether a line names columns; raise ValueError if these are in another order."""
    names = [field.strip("\"'").lower() for field in fields]
    if any(name[:1].isdigit() or name[:1] in "+-." for name in names):
        return False
    if names[2:5] == ["x", "y", "z"] and len(names) > 6 and names[6].startswith(("p", "link")):
        return True
    raise ValueError(
        f"line {number} names the columns {' '.join(fields)[:80]!r}, but {_COLUMNS} are needed"
    )


def _node(fields: list[str], number: int) -> tuple[int, Position, int]:
    """Id, position (z, y, x) and parent of one line."""
    try:
        x, y, z = map(float, fields[2:5])
        node, parent = _whole(fields[0]), _whole(fields[6])
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"line {number} is {' '.join(fields)[:80]!r}, but the columns {_COLUMNS} are needed"
        ) from error
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError(f"line {number}: the position {x} {y} {z} is not finite")
    return node, (z, y, x), parent


def _whole(text: str) -> int:
    """A whole number, also one that is written as a float."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not value.is_integer() or abs(value) > _EXACT:
        raise ValueError(f"{text} is no whole number")
    return int(value)


def _check_forest(
    graph: nx.Graph, parents: dict[int, tuple[int, int]], roots: set[int]
) -> None:
    if not graph:
        raise ValueError("there are no nodes in it")
    for piece in nx.connected_components(graph):
        if not any(parents[node][0] in roots for node in piece):
            number = min(parents[node][1] for node in piece)
            raise ValueError(f"line {number}: this node's parents form a circle, without a root")
