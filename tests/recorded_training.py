"""Shared helper: folders of trainings, as if a network had been trained there."""

import hashlib
import json

import torch
from safetensors.torch import save_file

from em_blocks.models.setup import Setup
from em_blocks.training.records.base import FINISHED
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.metrics_file import metrics_of
from em_blocks.training.records.origin import Origin, now
from tiny_setup import write_setup


def write_training(folder, *, values=None, iterations=(4, 8), seed=0, lineage=None):
    """Write a setup with weights, record and curves; returns the folder."""
    setup = Setup.from_folder(write_setup(folder, values))
    score = setup.config.training.score
    torch.manual_seed(seed)
    checkpoints = []
    (folder / "checkpoints").mkdir()
    names = [(n, f"checkpoint_{n}.safetensors") for n in iterations]
    for iteration, name in [*names, (iterations[0], "best.safetensors")]:
        path = folder / "checkpoints" / name
        save_file(setup.build().state_dict(), path, metadata={"iteration": str(iteration)})
        checkpoints.append({
            "file": name, "iteration": iteration, "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        })
    history = [{"iteration": n, score: 1 / n + seed / 100} for n in iterations]
    code = hashlib.sha256((folder / "network.py").read_bytes()).hexdigest()
    origin = Origin({}, 0, "python pipelines/train.py tiny", folder, lineage or {})
    sources = [{"name": "phantom of seed 3", "begin": [0, 0, 0], "end": [40, 64, 64],
                "weight": 1.0, "sha256": "0" * 64}]
    document = {
        "setup": setup.config.name, "command": "python pipelines/train.py tiny", "state": "running",
        "reason": None, "updated": now(), "iteration": iterations[-1],
        "iterations": iterations[-1], "seconds": 1.5, "seed": seed, "best": history[0],
        "best_of_each": {score: {"iteration": iterations[0], "value": history[0][score]}},
        "checkpoints": checkpoints, "history": history, "changes": [],
        "config": json.loads((folder / "config.json").read_text()), "network_py": code,
        "data": {"sources": sources, "validation": sources}, "made": {}, **origin.document(),
        "panels": ["training/panels", "training/snapshots"], "device": "cpu", "threads": 1,
    }
    record, curves = record_of(folder), metrics_of(folder)
    for one in (record, curves):
        one.start(0, document)
    for n in range(1, iterations[-1] + 1):
        curves.metrics(n, {"train/loss": 1 / n + seed})
    for entry in history:
        curves.metrics(entry["iteration"], {f"validation/{score}": entry[score]})
    for one in (record, curves):
        one.finish(FINISHED, None)
    return folder
