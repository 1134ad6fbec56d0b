"""Benchmarks of two checkouts on one machine, in turns: is any figure of the new one worse?

``in_turns.py --old DIR [--new DIR]`` runs dispatch.py, segment_vs_volara.py, extraction.py and
predict_efficiency.py of both checkouts, each with its own environment in ``.venv``: old, new, new, old,
and so on, because the speed of shared machines drifts. Every pair gives, for every line of JSON, how
much worse the new figure is: 1.02 is two per cent slower, larger or less. Medians of the pairs count.
Where a benchmark measures a reference beside itself (the bare network), their ratio is the figure.

"value" is the largest median, "against" 1.05.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import click

SCRIPTS = ("dispatch", "segment_vs_volara", "extraction", "predict_efficiency")
RELATIVE = {"predict efficiency", "chosen way against the fastest"}
"""Figures whose ratio to what is measured beside them counts."""
LIMIT = 1.05
HERE = Path(__file__).resolve().parents[1]
Figures = dict[str, float]
"""By name, a cost: what is better when it is less."""


def measured(checkout: Path, script: str) -> Figures:
    """Run a benchmark of a checkout; the figures of its lines of JSON."""
    done = subprocess.run(
        [str(checkout / ".venv/bin/python"), str(checkout / f"benchmarks/{script}.py")],
        cwd=checkout, capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise click.ClickException(f"{checkout}: {script}.py failed:\n{done.stderr[-3000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: cost(line) for line in lines}


def cost(line: dict) -> float:
    """Return the figure of a line of JSON, such that less is better."""
    value = line["ratio"] if line["name"] in RELATIVE else line["value"]
    rate = line["unit"].endswith("/s")
    return 1 / value if rate else value


def pairs_of(script: str, old: Path, new: Path, pairs: int) -> dict[str, list[float]]:
    """Per figure, new over old of every pair; which goes first alternates."""
    ratios = defaultdict(list)
    for pair in range(pairs):
        order = (old, new) if pair % 2 == 0 else (new, old)
        found = {checkout: measured(checkout, script) for checkout in order}
        for name in found[old].keys() & found[new].keys():
            ratios[name].append(found[new][name] / found[old][name])
            print(f"{script}, pair {pair + 1}, {name}: {ratios[name][-1]:.3f}", flush=True)
    return ratios


@click.command()
@click.option("--old", required=True, type=click.Path(exists=True, path_type=Path),
              help="Checkout of the old commit.")
@click.option("--new", default=HERE, type=click.Path(exists=True, path_type=Path),
              help="Checkout of the new one; default: this one.")
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--only", "scripts", multiple=True, type=click.Choice(SCRIPTS), default=SCRIPTS,
              help="Only these benchmarks; may be repeated.")
def main(old: Path, new: Path, pairs: int, scripts: tuple[str, ...]) -> None:
    medians: Figures = {}
    for script in scripts:
        for name, ratios in pairs_of(script, old.resolve(), new.resolve(), pairs).items():
            medians[name] = statistics.median(ratios)
    for name, ratio in medians.items():
        print(f"{name}: {ratio:.3f} of the old cost, median of {pairs}")
    worst = max(medians, key=medians.get)
    print(json.dumps({"name": f"largest cost of {len(medians)} figures, new over old ({worst})",
                      "value": round(medians[worst], 3), "unit": "", "against": LIMIT,
                      "ratio": round(medians[worst] / LIMIT, 3)}))
    sys.exit(1 if medians[worst] > LIMIT else 0)


if __name__ == "__main__":
    main()
