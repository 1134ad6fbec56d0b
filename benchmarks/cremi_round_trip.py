"""CREMI files of the demo's synapses get from CREMI's scorer the F-score of em_blocks itself.

``cremi_round_trip.py [FOLDER]`` runs the demo in FOLDER unless it is there, exports its synapses with
`em-blocks export synapses` as CREMI files, at several scores, and scores them twice: with `em-blocks
evaluate synapses` on the same rows as Parquet (positions in the world), and with the scorer of the
challenge as tests/cremi_scorer.py has it, which knows nothing of em_blocks. "value" is the largest
difference, "against" what is allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cremi_scorer import fscore
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses, write_synapses
from em_blocks.volumes.synapse_files.cremi import CremiVolume

SCORES = (0, 20, 40, 80, 120, 200)
ALLOWED = 0.001
BIN = Path(sys.executable).parent


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder or Path(scratch) / "demo"
        if not (folder / "map_synapses.json").exists():
            run("em-blocks", "demo", folder)
        differences = [compare(folder, Path(scratch), score) for score in SCORES]
    print(json.dumps({
        "name": "largest difference of F of CREMI's partner score and em_blocks' own, demo",
        "value": max(differences), "unit": "F", "against": ALLOWED,
        "ratio": max(differences) / ALLOWED,
    }))


def compare(folder: Path, scratch: Path, score: float) -> float:
    """Difference of both scores for the links of at least this score."""
    truth, neurons = scratch / "truth.hdf", Volume.open(str(folder / "volume.zarr/neurons"))
    labels = CremiVolume(neurons.read(neurons.box), neurons.frame)
    true_links = folder / "volume.zarr/synapses.parquet"
    write_synapses(truth, read_synapses(true_links), volumes={"neuron_ids": labels})
    for ending in ("hdf", "parquet"):
        run("em-blocks", "export", "synapses", folder / "extract_synapses.json", "--min-score", score,
            "--output", scratch / f"found.{ending}")
    config = scratch / "evaluate.json"
    config.write_text(json.dumps({
        "kind": "evaluate_synapses", "truth": str(true_links),
        "prediction": str(scratch / "found.parquet"), "neurons": str(folder / "volume.zarr/neurons"),
    }))
    own = json.loads(run("em-blocks", "evaluate", "synapses", config, "--json"))["fscore"]
    challenge = fscore(scratch / "found.hdf", truth, truth)
    print(f"score at least {score}: em_blocks {own:.6f}, CREMI {challenge:.6f}")
    return abs(own - challenge)


def run(command: str, *arguments: object) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(
        [str(BIN / command), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
