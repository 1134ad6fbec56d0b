"""Fine-tuning: a network of generated tissue, and what few real sections make of it.

For every seed three trainings of one recipe (that of ``setups/organelle_sections``): on generated
volumes; on a few real sections, beginning with those weights; on the same sections from scratch. Both
have the same number of iterations, so the same time. All are scored on real sections that none has
seen, with the last weights, not the best ones, and without exclusion. Finished trainings in
``--folder`` are not repeated.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]
RECIPE = Path(__file__).parents[1] / "setups" / "organelle_sections" / "config.json"
VOXEL_SIZE = (50.0, 9.2, 9.2)
GENERATED = {"31": 300, "32": 450, "33": 220}  # seeds of the volumes, thickness of neurites in nm
REGION = {"file": "vnc.zarr", "voxel_size": VOXEL_SIZE, "raw": "equalized/s1",
          "labels": {"mitochondria/s1": 1}}


def call(*arguments: str) -> None:
    """Run a command of em-blocks; raises if it fails."""
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)


def generate(folder: Path) -> dict:
    """Make the equalised volumes of generated tissue; returns their data config."""
    entries = {}
    for seed, neurite_nm in GENERATED.items():
        volume = folder / f"generated_{seed}.zarr"
        if not volume.exists():
            call("generate", str(volume), "--shape", "24,384,384", "--seed", seed,
                 "--voxel-size", "50,9.2,9.2", "--neurite-nm", str(neurite_nm))
        config = folder / f"equalize_{seed}.json"
        config.write_text(json.dumps({
            "kind": "equalize", "run": f"generated_{seed}", "raw": str(volume / "raw"),
            "output": str(volume / "equalized"), "kernel_shape": [1, 128, 128],
            "num_workers": 2,
        }))
        call("equalize", str(config))
        entries[f"generated {seed}"] = {
            "file": volume.name, "voxel_size": VOXEL_SIZE, "raw": "equalized",
            "labels": {"mitochondria": 1}, "offset": [0, 0, 0], "shape": [24, 384, 384],
        }
    return entries


def make_setup(folder: Path, name: str, entries: dict, data: Path, seed: int, iterations: int) -> Path:
    """Write a setup that trains on data sets and is scored on the held-out real sections."""
    setup = folder / f"{name}_{seed}"
    setup.mkdir(exist_ok=True)
    held_out = {"held out": REGION | {"offset": [12, 0, 0], "shape": [3, 512, 512]}}
    (setup / "train.json").write_text(json.dumps(entries))
    (setup / "validation.json").write_text(json.dumps(held_out))
    config = json.loads(RECIPE.read_text()) | {"name": setup.name}
    training = config["training"] | {
        "seed": seed, "iterations": iterations, "warmup": 50, "ema_decay": 0.98,
        "validate_every": iterations, "checkpoint_every": iterations,
    }
    training["sources"]["folder"] = str(folder if name == "generated" else data)
    training["validation"]["folder"] = str(data)
    (setup / "config.json").write_text(json.dumps(config | {"training": training}))
    return setup


def train(setup: Path, *options: str) -> dict:
    """Train a setup unless it is finished; returns scores of the last weights, and seconds."""
    output, result = setup / "run", setup / "result.json"
    if not result.exists():
        began = time.monotonic()
        call("train", str(setup), "--output", str(output), *options)
        record = json.loads((output / "checkpoints" / "record.json").read_text())
        scores = record["history"][-1]
        result.write_text(json.dumps({
            "f1": scores["organelles/mitochondria_f1"], "seconds": time.monotonic() - began,
        }))
    return json.loads(result.read_text())


def study(
    folder: Path, data: Path, generated: dict, seed: int, sections: int, iterations: tuple[int, int]
) -> dict:
    """Train the three networks of one seed; returns their F1."""
    few = {"few": REGION | {"offset": [0, 0, 0], "shape": [sections, 512, 512]}}
    first = make_setup(folder, "generated", generated, data, seed, iterations[0])
    tuned = make_setup(folder, "tuned", few, data, seed, iterations[1])
    scratch = make_setup(folder, "scratch", few, data, seed, iterations[1])
    results = {
        "generated tissue only": train(first),
        "fine-tuned": train(tuned, "--start-from", f"{first / 'run'}:latest"),
        "from scratch": train(scratch),
    }
    for name, result in results.items():
        print(f"seed {seed}, {name}: F1 {result['f1']:.4f} after {result['seconds']:.0f} s", flush=True)
    return {name: result["f1"] for name, result in results.items()}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default="data",
              help="Folder of vnc.zarr, as configs/vnc_*.json make it.")
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--sections", default=3, show_default=True)
@click.option("--iterations", nargs=2, default=(400, 400), show_default=True,
              help="Of the generated tissue, and of the real sections.")
def main(data: Path, folder: Path, seeds: int, sections: int, iterations: tuple[int, int]) -> None:
    folder, data = folder.resolve(), data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    generated = generate(folder)
    found = [
        study(folder, data, generated, seed, sections, iterations) for seed in range(1, seeds + 1)
    ]
    means = {name: statistics.mean(scores[name] for scores in found) for name in found[0]}
    print(json.dumps({"name": "F1 of mitochondria after fine-tuning", "value": means["fine-tuned"],
                      "unit": "F1", "against": max(v for k, v in means.items() if k != "fine-tuned"),
                      "ratio": None, "means": means, "seeds": found}))
    beaten = all(scores["fine-tuned"] == max(scores.values()) for scores in found)
    sys.exit(0 if beaten else 1)


if __name__ == "__main__":
    main()
