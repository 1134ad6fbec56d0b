"""Storing 10^6 synapses with all their indexes, and asking for them.

Rows are stored by blocks, by two workers, durably, on a private mongod. Then the inputs of a neuron,
its strongest partners and a box of one micrometre are asked for, at many neurons and places; every
plan is shown and must be an index scan. "against" is the 60 s in which 10^6 should be stored, scaled to
the number of rows.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import psutil

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.synapses import SynapseStore
from em_blocks.geometry import Roi
from em_blocks.kernels.synapses.table import Synapses

PER_BLOCK = 1000
BLOCK_NM = np.array([4000.0, 4000.0, 4000.0])  # 15 synapses per cubic micrometre
VOXEL_NM = np.array([40.0, 4.0, 4.0])
TARGET_S_PER_MILLION = 60.0
SYNAPSES_PER_NEURON = 500


def blocks(n: int, seed: int = 0) -> Iterator[tuple[str, Synapses]]:
    """Blocks of mapped synapses that fill a cube; neurons have lengthy-tailed numbers of synapses."""
    rng = np.random.default_rng(seed)
    n_blocks = -(-n // PER_BLOCK)
    side = int(np.ceil(n_blocks ** (1 / 3)))
    shape = np.round(BLOCK_NM / VOXEL_NM).astype(int)
    for number in range(n_blocks):
        index = np.array(np.unravel_index(number, (side,) * 3))
        inside = np.unravel_index(rng.choice(shape.prod(), PER_BLOCK, replace=False), shape)
        voxel = index * shape + np.stack(inside, axis=1)
        post = (voxel + 0.5) * VOXEL_NM
        yield "/".join(map(str, index)), Synapses(
            id=np.ravel_multi_index(tuple(voxel.T), tuple(shape * side)), post=post,
            pre=post + rng.normal(0, 100, (PER_BLOCK, 3)), score=rng.gamma(4, 10, PER_BLOCK),
            size=rng.integers(5, 300, PER_BLOCK),
            **{name: neurons(rng, n) for name in (
                "pre_supervoxel", "post_supervoxel", "pre_segment", "post_segment")},
        )


def neurons(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ids of large and small neurons."""
    share = rng.beta(1, 3, PER_BLOCK)
    return (share * n / SYNAPSES_PER_NEURON * 3).astype(np.int64) + 2**40


def store_all(store: SynapseStore, n: int) -> float:
    """Seconds to store by two workers; making the rows up does not count."""
    made = list(blocks(n))
    server, before = psutil.Process(server_pid(store)), time.process_time()
    busy, start = server.cpu_times().user, time.perf_counter()
    with ThreadPoolExecutor(2) as workers:
        list(workers.map(lambda block: store.replace_block(*block), made))
    seconds = time.perf_counter() - start
    print(
        f"{store.count()} rows in {seconds:.1f} s; processor seconds: "
        f"{time.process_time() - before:.1f} of the client, "
        f"{server.cpu_times().user - busy:.1f} of the server", flush=True,
    )
    return seconds


def server_pid(store: SynapseStore) -> int:
    return store.collection.database.client.admin.command("serverStatus")["pid"]


def ask(store: SynapseStore, name: str, queries: list[dict], run: Callable[[dict], int]) -> float:
    """Median milliseconds of a query over many neurons or places; its plan must use an index."""
    found, times = 0, []
    for query in queries:
        start = time.perf_counter()
        found += run(query)
        times.append(1000 * (time.perf_counter() - start))
    statistics_of = store.collection.find(queries[0]).explain()
    plan = stages(statistics_of["queryPlanner"]["winningPlan"])
    examined = statistics_of["executionStats"]
    print(
        f"{name}: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms for "
        f"{found / len(queries):.0f} rows on average; plan {' < '.join(plan)}, "
        f"{examined['totalKeysExamined']} keys for {examined['nReturned']} rows"
    )
    assert "COLLSCAN" not in plan, plan
    return statistics.median(times)


def stages(plan: dict) -> list[str]:
    """Stages of a query plan, with names of indexes."""
    name = f"{plan['stage']} {plan['indexName']}" if "indexName" in plan else plan["stage"]
    return [name, *(stages(plan["inputStage"]) if "inputStage" in plan else [])]


def partners(store: SynapseStore, query: dict) -> int:
    """Return the ten neurons that make most synapses onto one."""
    return len(list(store.collection.aggregate([
        {"$match": query}, {"$group": {"_id": "$pre.segment", "n": {"$sum": 1}}},
        {"$sort": {"n": -1}}, {"$limit": 10},
    ])))


@click.command()
@click.option("--synapses", default=1_000_000, show_default=True)
@click.option("--questions", default=50, show_default=True, help="Neurons and places to ask about.")
def main(synapses: int, questions: int) -> None:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder, database_uri(None, Path(folder)) as uri:
        with connect(uri) as client:
            store = SynapseStore(client, "benchmark", "synapses")
            store.prepare()
            seconds = store_all(store, synapses)
            read = lambda query: len(list(store.collection.find(query)))  # noqa: E731
            some = [int(i) for i in neurons(rng, synapses)[:questions]]
            inputs = [store.query(post_segment=i) for i in some]
            side = round((synapses / PER_BLOCK) ** (1 / 3))
            corners = rng.random((questions, 3)) * (BLOCK_NM * side - 1000)
            boxes = [store.query(roi=Roi(corner, (1000, 1000, 1000))) for corner in corners]
            slowest = max(
                ask(store, "inputs of a neuron", inputs, read),
                ask(store, "strongest partners", inputs, lambda query: partners(store, query)),
                ask(store, "box of 1 um", boxes, read),
            )
            start = time.perf_counter()
            table = store.read(post_segment=some)
            print(f"{len(table)} rows as a table in {time.perf_counter() - start:.2f} s")
    target = TARGET_S_PER_MILLION * synapses / 1e6
    print(json.dumps({"name": "synapses stored, indexes included", "value": round(seconds, 1),
                      "unit": "s", "against": target, "ratio": round(seconds / target, 3),
                      "slowest_query_ms": round(slowest, 1)}))


if __name__ == "__main__":
    main()
