"""The merge forest of a region graph, super-block by super-block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from em_blocks.config import StorePath, StrictModel
from em_blocks.geometry import Block, Box
from em_blocks.kernels.segmentation.agglomerate import Graph, LargeRule, Merges, agglomerate
from em_blocks.kernels.segmentation.graph_rows import dense, summed
from em_blocks.kernels.segmentation.merge_tree import cut
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.segmentation.super_blocks import SuperBlockTask
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

EMPTY_NODES = {
    "node": np.zeros(0, np.int64), "open": np.zeros(0, bool), "voxels": np.zeros(0, np.int64),
    "begin": np.zeros((0, 3), np.int64), "end": np.zeros((0, 3), np.int64),
}


class SizeRule(StrictModel):
    """Two large clusters merge only where there is little doubt."""

    voxels: PositiveInt = Field(description="Voxels from which on a cluster is large.")
    affinity: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Two large clusters merge at no less."
    )


class AgglomerateGraph(SuperBlockTask):
    """Merge what is certain within every super-block; leave the rest to the level above.

    A node is open while pairs of voxels may join it to others outside of the super-block: those
    merge only where nothing that lies outside could change it. So the merges of all levels are those
    of one agglomeration of the whole graph, whatever the super-blocks, while no worker holds more
    than the graph of one super-block. The last level is a single super-block.

    Tables of a super-block: ``merges`` (a, b, affinity), clusters named by their smallest
    fragment; ``nodes`` and ``rest``, the clusters and edges that the level above goes on with.
    """

    kind: Literal["agglomerate_graph"]
    edge_tables: StorePath = Field(description="Tables of edges.")
    below: StorePath | None = Field(
        None, description="Folder of the merge forest with the level below. Default: output."
    )
    reach: Annotated[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], Field()] = Field(
        description="Voxels (z, y, x) between the partners of the longest affinity."
    )
    lowest: Annotated[float, Field(ge=0, le=1)] = Field(description="Weaker edges do not merge.")
    linkage: Literal["average", "single", "quantile"] = Field(
        description="Affinity of two clusters: mean of that of their fragments, the largest, or a "
        "quantile of their contact."
    )
    quantile: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="For that linkage.")

    size_rule: SizeRule | None = Field(None, description="When two large clusters merge.")

    def sources(self) -> dict[str, str]:
        read = {"tables of nodes": self._below("nodes"), "tables of edges": self._below("rest")}
        if self.level == 0:
            read = {"tables of fragments": self.fragment_tables, "tables of edges": self.edge_tables}
        return super().sources() | read

    def inputs(self) -> dict:
        below = self.edge_tables if self.level == 0 else self._below("rest")
        return {
            "fragments": fingerprint_of(self.fragments),
            "below": TableOutput("below", below).stored_fingerprint(),
        }

    def output_specs(self) -> list[TableOutput]:
        return [
            TableOutput(name, self._folder(self.level, name), rows_per_voxel=0.005)
            for name in ("merges", "nodes", "rest")
        ]

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "below", "like", "fragments", "fragment_tables", "edge_tables"}

    def relocated(self, folder: Path) -> Self:
        return self.model_copy(update={
            "output": str(folder / "forest"), "below": self.below or self.output, "run_dir": folder,
        })

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        outputs = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                nodes, edges = self._read(block)
            with report.measure("compute"):
                tables = self._agglomerate(nodes, edges, block.write_box)
            with report.measure("write"):
                for name, columns in tables.items():
                    report.write_table(name, outputs[name], block, columns)
            report.counts["merges"] = len(tables["merges"]["a"])

        yield process

    # -- reading --------------------------------------------------------------------------

    def _read(self, block: Block) -> tuple[Columns, Columns]:
        """Nodes and edges of all parts of a super-block that the mask leaves."""
        parts = self.parts(block)
        if self.level > 0:
            nodes, edges = BlockTables(self._below("nodes")), BlockTables(self._below("rest"))
            return _joined(map(nodes.read, parts), EMPTY_NODES), _joined(map(edges.read, parts), {})
        return (
            _joined((self._fragments(key) for key in parts), EMPTY_NODES),
            _joined((self._edges(key) for key in parts), {}),
        )

    def _fragments(self, key: str) -> Columns:
        rows = BlockTables(self.fragment_tables).read(key, ["fragment", "voxels", "begin", "end"])
        return {
            "node": rows["fragment"], "open": np.ones(len(rows["fragment"]), bool),
            "voxels": rows["voxels"],
            "begin": rows["begin"], "end": rows["end"],
        }

    def _edges(self, key: str) -> Columns:
        rows = BlockTables(self.edge_tables).read(
            key, ["u", "v", "contact", "total", "weight", *self._more]
        )
        return {
            **rows, "contact": rows["contact"].sum(axis=1),
            # Of edges of one affinity, that between the smallest fragments is taken first.
            "rank_u": rows["u"], "rank_v": rows["v"],
        }

    # -- computing ------------------------------------------------------------------------

    def _agglomerate(self, nodes: Columns, edges: Columns, box: Box) -> dict[str, Columns]:
        ids, (own, u, v) = dense(nodes["node"], edges["u"], edges["v"])
        is_open = np.ones(len(ids), bool)  # what another super-block has to say about is open
        is_open[own] = self._still_open(nodes, box)
        rank, rank_ids = _ranks(edges)
        sums = {name: edges[name] for name in ("contact", "total", "weight", *self._more)}
        sums["rank"] = rank
        u, v, rows = summed(
            np.minimum(u, v), np.maximum(u, v), sums, best=self.linkage == "single"
        )
        # A pair that does not touch, and to which no other super-block adds, is no edge.
        taken = (rows["contact"] > 0) | (is_open[u] & is_open[v])
        rows = {name: values[taken] for name, values in rows.items()}
        graph = Graph(
            u[taken], v[taken], rows["total"], rows["weight"], rows["rank"], rows.get("histogram")
        )
        voxels = np.zeros(len(ids), np.int64)
        voxels[own] = nodes["voxels"]
        rule = self.size_rule
        merges, rest = agglomerate(
            len(ids), graph, lowest=self.lowest, average=self.linkage == "average",
            open_nodes=is_open, large=rule and LargeRule(voxels, rule.voxels, rule.affinity),
            quantile=self.quantile if self.linkage == "quantile" else None,
        )
        tables = {
            "merges": {"a": ids[merges.a], "b": ids[merges.b], "affinity": merges.affinity},
            "nodes": EMPTY_NODES, "rest": {name: np.zeros(0, np.int64) for name in EDGE_COLUMNS},
        }
        if not self.last:
            tables["rest"] = _rest_rows(ids, rest, rows, rank_ids)
            total = _cluster_voxels(voxels, merges)
            tables["nodes"] = _left_nodes(tables["rest"], nodes, is_open[own], total[own])
        return tables

    def _still_open(self, nodes: Columns, box: Box) -> np.ndarray:
        """Nodes with voxels so close to a face of `box` that they may have edges beyond it."""
        begin, end = np.array(box.offset), np.array(box.end)
        shape, reach = np.array(self._volume.shape), np.array(self.reach)
        before = (begin > 0) & (nodes["begin"] - reach < begin)
        after = (end < shape) & (nodes["end"] + reach > end)
        return nodes["open"] & (before | after).any(axis=1)

    @property
    def _more(self) -> tuple[str, ...]:
        """Columns of edges that only this linkage needs."""
        return ("histogram",) if self.linkage == "quantile" else ()

    def _below(self, name: str) -> str:
        return store.join(self.below or self.output, str(self.level - 1), name)


EDGE_COLUMNS = ("u", "v", "contact", "total", "weight", "rank_u", "rank_v")


def _joined(tables: Iterator[Columns], empty: Columns) -> Columns:
    """All rows of several tables of the same columns."""
    tables = list(tables)
    if not tables:
        return empty or {name: np.zeros(0, np.int64) for name in EDGE_COLUMNS}
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _ranks(edges: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Place of every row in the order of (rank_u, rank_v), and the rows in that order."""
    order = np.lexsort((edges["rank_v"], edges["rank_u"]))
    pairs = np.stack([edges["rank_u"][order], edges["rank_v"][order]], axis=1)
    new = np.ones(len(order), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new) - 1
    return rank, pairs[new]


def _rest_rows(ids: np.ndarray, rest: Graph, rows: dict, rank_ids: np.ndarray) -> Columns:
    """Edges that are left for the level above.

    The contact matters only between two open nodes, which did not merge: it is still that of the
    row that gave the edge its rank.
    """
    order = np.argsort(rows["rank"])
    row = order[np.searchsorted(rows["rank"][order], rest.rank)]
    pair = rank_ids[rest.rank]
    return {
        "u": ids[rest.u], "v": ids[rest.v], "contact": rows["contact"][row], "total": rest.total,
        "weight": rest.weight, "rank_u": pair[:, 0].copy(), "rank_v": pair[:, 1].copy(),
        **({} if rest.histogram is None else {"histogram": rest.histogram}),
    }


def _cluster_voxels(voxels: np.ndarray, merges: Merges) -> np.ndarray:
    """Voxels of the cluster that every node names; only names are looked at afterwards."""
    kept = cut(len(voxels), merges.a, merges.b, np.ones(len(merges.a), bool))
    total = np.zeros_like(voxels)
    np.add.at(total, kept, voxels)
    return total


def _left_nodes(
    rest: Columns, nodes: Columns, is_open: np.ndarray, voxels: np.ndarray
) -> Columns:
    """Own clusters that still have edges; foreign ones are listed by their own super-block."""
    left = np.isin(nodes["node"], np.concatenate([rest["u"], rest["v"]]))
    return {
        "node": nodes["node"][left], "open": is_open[left], "voxels": voxels[left],
        "begin": nodes["begin"][left], "end": nodes["end"][left],
    }
