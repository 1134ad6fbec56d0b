"""What a search leaves in its folder: scores, a picture, and the best config."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from em_blocks.evaluation.instance_search.config import Values
from em_blocks.evaluation.instance_search.search import Found
from em_blocks.json_text import json_text
from em_blocks.kernels.plots.choices import Panel, choice_curves
from em_blocks.volumes.stores.whole_files import written_whole

BEST = "best.json"


def write_results(found: Found) -> list[Path]:
    """Write search.json, search.csv, search.png and best.json, a config of segment_instances."""
    from PIL import Image

    folder = found.task.folder
    paths = [folder / name for name in ("search.json", "search.csv", "search.png", BEST)]
    with written_whole(paths[0]) as partial:
        partial.write_text(json_text(found.document(), indent=2) + "\n")
    with written_whole(paths[1]) as partial:
        _write_rows(partial, found)
    with written_whole(paths[2]) as partial:
        Image.fromarray(choice_curves(panels(found))).save(partial)
    with written_whole(paths[3]) as partial:
        config = found.config.model_dump(mode="json", exclude_defaults=True)
        partial.write_text(json.dumps({"kind": found.config.kind} | config, indent=2) + "\n")
    return paths


def panels(found: Found) -> list[Panel]:
    """Return what is drawn: one panel for every key with several values."""
    lists = {key: sorted(values) for key, values in found.task.grid.lists.items() if len(values) > 1}
    return [
        Panel(
            key, [_spelled(value) for value in values],
            [_highest(found, {key: value}) for value in values],
            [_highest(found, found.best.values | {key: value}) for value in values],
            values.index(found.best.values[key]),
        )
        for key, values in lists.items()
    ]


def _highest(found: Found, fixed: Values) -> float | None:
    """Return the highest score of the choices with some values; None if there are none."""
    scores = [
        tried.score for tried in found.tried
        if all(tried.values[key] == value for key, value in fixed.items())
    ]
    return max(scores, default=None)


def _write_rows(path: Path, found: Found) -> None:
    rows = sorted(found.tried, key=lambda tried: -tried.score)
    ious = [f"f1_at_{iou:g}" for iou in found.task.ious]
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["score", *found.task.grid.lists, *ious, "objects", "true_objects"])
        for tried in rows:
            first = tried.scores[0]
            table.writerow([
                tried.score, *map(_spelled, tried.values.values()),
                *(score["fscore"] for score in tried.scores), first["tp"] + first["fp"],
                first["tp"] + first["fn"],
            ])


def _spelled(value: object) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
