"""Simulate how many workers one scheduler and one database can serve, and which is the limit.

What a block, a ping and a commit cost is measured first, on the real gateway with thousands of real
connections and on a private mongod. With these costs, clusters of 1 to 10,000 workers are simulated
around the real dispatcher: the blocks, their failures, lost workers and all. The largest cluster does
all 10^6 blocks, the others a number of rounds.

The database is given as many cores as this machine has. "against" is a cluster whose workers never
wait.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click

from parts.cluster_costs import Costs, measure, noop, work
from parts.cluster_model import Cluster, Outcome, Simulation

WORKERS = (1, 10, 100, 1000, 3000, 10_000)
BLOCK_S = (0.5, 5.0, 60.0)
LARGEST = Cluster(WORKERS[-1], 5.0)


def simulate(cluster: Cluster, costs: Costs, side: int) -> Outcome:
    """A cluster doing `side`^3 blocks."""
    start = time.perf_counter()
    outcome = Simulation(work(noop(Path("none"), (side,) * 3)), cluster, costs).run()
    print(
        f"{cluster.workers:7d} {cluster.block_s:8.1f} {outcome.blocks:9d} {outcome.rate:9.1f} "
        f"{outcome.scheduler:9.1%} {outcome.database:9.1%} {1e3 * outcome.wait_s:9.1f} "
        f"{outcome.efficiency:10.1%} {outcome.lost:6d} {outcome.seconds:9.0f}   "
        f"({time.perf_counter() - start:.0f} s)", flush=True,
    )
    return outcome


def side(workers: int, rounds: int) -> int:
    """Blocks along each edge of a cube, so that each worker does about so many."""
    return max(6, round((workers * rounds) ** (1 / 3)))


def plot(outcomes: dict[Cluster, Outcome], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for seconds, color in zip(BLOCK_S, ("tab:red", "tab:blue", "tab:green"), strict=True):
        found = {c.workers: o for c, o in outcomes.items() if c.block_s == seconds}
        style = {"color": color, "marker": "o", "ms": 3, "label": f"blocks of {seconds:g} s"}
        axes[0].plot([*found], [o.rate for o in found.values()], **style)
        axes[0].plot([*found], [n / seconds for n in found], color=color, lw=0.7, ls=":")
        axes[1].plot([*found], [100 * o.efficiency for o in found.values()], **style)
        axes[2].plot([*found], [100 * o.scheduler for o in found.values()], **style)
        axes[2].plot([*found], [100 * o.database for o in found.values()], color=color, ls="--")
    for one, name in zip(
        axes, ("blocks/s (dotted: without waiting)", "workers' time in blocks, %",
               "busy, %: scheduler, database (dashed)"), strict=True,
    ):
        one.set(xscale="log", xlabel="workers", title=name)
        one.title.set_fontsize(10)
        one.grid(alpha=0.3)
    axes[0].set(yscale="log")
    axes[0].legend(fontsize=8)
    axes[1].set(ylim=(0, 105))
    axes[2].set(ylim=(0, 105))
    figure.savefig(path, dpi=90)


@click.command()
@click.option("--connections", default=2000, show_default=True, help="Real ones, for the costs.")
@click.option("--seconds", default=4.0, show_default=True, help="Of each measurement of the gateway.")
@click.option("--rounds", default=6, show_default=True, help="Blocks per worker.")
@click.option("--largest", default=100, show_default=True, help="Edge, in blocks, of the largest run.")
@click.option("--db-cores", default=os.cpu_count(), show_default=True)
@click.option("--plot", "path", type=click.Path(path_type=Path), help="File for the figure.")
def main(connections, seconds, rounds, largest, db_cores, path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder), connections=connections, seconds=seconds)
    print("CPU us each:", {name: round(1e6 * value, 1) for name, value in asdict(costs).items()})
    commit = costs.db_commit + costs.db_block
    print(
        f"no more than {1 / costs.block:.0f} blocks/s by the scheduler, "
        f"{db_cores / commit:.0f} commits/s of one block by a database of {db_cores} cores"
    )
    print("workers  block s    blocks  blocks/s scheduler  database   wait ms  in blocks   lost seconds")
    outcomes = {}
    for block_s in BLOCK_S:
        for workers in WORKERS:
            cluster = Cluster(workers, block_s, db_cores=db_cores)
            full = (workers, block_s) == (LARGEST.workers, LARGEST.block_s)
            outcomes[cluster] = simulate(cluster, costs, largest if full else side(workers, rounds))
    if path is not None:
        plot(outcomes, path)
    best = outcomes[Cluster(LARGEST.workers, LARGEST.block_s, db_cores=db_cores)]
    against = LARGEST.workers / LARGEST.block_s
    print(json.dumps({
        "name": f"blocks/s of {LARGEST.workers} simulated workers, {LARGEST.block_s:g} s each",
        "value": round(best.rate), "unit": "blocks/s", "against": round(against),
        "ratio": round(best.rate / against, 3),
    }))


if __name__ == "__main__":
    sys.exit(main())
