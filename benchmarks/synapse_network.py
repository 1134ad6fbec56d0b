"""Synaptic partners in volumes that no training has seen, from raw to F-score, by the commands.

``python benchmarks/synapse_network.py [FOLDER]`` generates two volumes of 64x512x512 voxels (40x4x4 nm)
with seeds of their own, predicts them with setups/synapse_multitask, extracts the partners and
scores them as the CREMI challenge does: both sites within 400 nm, with and without the condition
that they lie in the same true neurons. Threshold and sizes are those of the demo, chosen on the
volume that the training was validated with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setups/synapse_multitask"
SEEDS = (1001, 1002)  # trained with 31-36, validated with 41
SHAPE = "64,512,512"
BLOCK_SHAPE = (32, 128, 128)
TARGET = 0.8


def main(folder: Path) -> None:
    from em_blocks.cli.demo.synapses import extraction, prediction

    pooled = {"by place": [0, 0, 0], "in the same neurons": [0, 0, 0]}
    for seed in SEEDS:
        here = folder / f"seed{seed}"
        here.mkdir(parents=True, exist_ok=True)
        if not (here / "volume.zarr").exists():
            call("generate", here / "volume.zarr", "--shape", SHAPE, "--seed", seed)
        run(here, "predict", prediction(BLOCK_SHAPE))
        extract = run(here, "extract-synapses", extraction(BLOCK_SHAPE))
        found = here / "found.parquet"
        found.unlink(missing_ok=True)
        call("export", "synapses", extract, "--output", found)
        for name, counts in pooled.items():
            score = evaluate(here, found, same_neurons=name != "by place")
            pooled[name] = [a + score[key] for a, key in zip(counts, ("tp", "fp", "fn"), strict=True)]
            print(f"seed {seed}, {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in score.items()))
    f = {name: 2 * tp / (2 * tp + fp + fn) for name, (tp, fp, fn) in pooled.items()}
    print("both volumes: " + ", ".join(f"F {name} {value:.3f}" for name, value in f.items()))
    print(json.dumps({
        "name": "partner F-score without neuron ids, unseen volumes", "value": round(f["by place"], 4),
        "unit": "F", "against": TARGET, "ratio": round(f["by place"] / TARGET, 3),
    }))


def run(folder: Path, verb: str, config: dict) -> Path:
    """Write the config of a verb and run it."""
    path = folder / f"{verb}.json"
    path.write_text(json.dumps(config, indent=2))
    call(verb, path)
    return path


def evaluate(folder: Path, found: Path, *, same_neurons: bool) -> dict:
    """Scores of `found`, in true neurons or by place alone."""
    config = {
        "kind": "evaluate_synapses",
        "truth": "volume.zarr/synapses.parquet",
        "prediction": str(found.resolve()),
        **({"neurons": "volume.zarr/neurons"} if same_neurons else {"id_type": "none"}),
    }
    path = folder / f"evaluate_{'neurons' if same_neurons else 'places'}.json"
    path.write_text(json.dumps(config, indent=2))
    return json.loads(call("evaluate", "synapses", path, "--json"))


def call(*arguments) -> str:
    """Return what a verb prints; end the benchmark if it fails."""
    command = [str(Path(sys.executable).parent / "em-blocks"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/synapse_network"))
