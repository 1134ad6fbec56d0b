"""Everything that a chain of commands leaves behind, and where two such results differ."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from em_blocks.cli.common import load_config
from em_blocks.db.runs import RunStore
from em_blocks.volumes.stores.ledger import LEDGER

BLOCK_FIELDS = ("state", "index", "offset", "shape", "counts", "checksums")
RUN_FIELDS = ("task", "state", "fingerprint", "identity", "grid", "n_blocks", "n_masked", "measured")
CONTAINERS = ("predictions.zarr", "segmentation.zarr")
TRACES = {
    "WorkerLost": "blocks taken from workers that were lost",
    "BlockTimeout": "blocks taken from workers for their time",
}
REFUSALS = ("not recorded.", "not written.")


@dataclass(frozen=True)
class Result:
    """Files, rows and documents; each with its content as a string.

    Attributes
    ----------
    files : dict
        sha256 of every file of the outputs: all voxels and tables, and their metadata.
    rows : dict
        Synapses in the database, with all of their fields.
    documents : dict
        Runs and blocks, without times, hosts and numbers of attempts.
    """

    files: dict[str, str]
    rows: dict[str, str]
    documents: dict[str, str]

    @classmethod
    def of(cls, configs: list[Path], output: Path, client) -> Result:
        steps = [step for config in configs for step in load_config(config).steps()]
        documents: dict[str, str] = {}
        for step in steps:
            store = RunStore(client, step.db_name, step.run)
            documents[f"run {step.run}"] = _chosen(store.load() or {}, RUN_FIELDS)
            documents |= {f"block {d['_id']}": _chosen(d, BLOCK_FIELDS) for d in store.documents()}
        database = client[steps[0].db_name]
        documents |= {f"ids {d['_id']}": _text(d) for d in database["id_ranges"].find()}
        rows = {f"synapse {row['_id']}": _text(row) for row in database["synapses"].find()}
        return cls(_digests(output), rows, documents)

    def __len__(self) -> int:
        return len(self.files) + len(self.rows) + len(self.documents)

    def differences(self, expected: Result) -> list[str]:
        """Yield one line for everything that is missing, additional, or other than expected."""
        found = []
        for name in ("files", "rows", "documents"):
            ours, theirs = getattr(self, name), getattr(expected, name)
            found += [f"missing: {key}" for key in sorted(theirs.keys() - ours.keys())]
            found += [f"too much: {key}" for key in sorted(ours.keys() - theirs.keys())]
            found += [
                f"different: {key}: {ours[key][:300]} instead of {theirs[key][:300]}"
                for key in sorted(ours.keys() & theirs.keys()) if ours[key] != theirs[key]
            ]
        return found


def traces(output: Path, client) -> Counter:
    """Return the effects of the faults of a round, from attempts in the database and logs of workers."""
    losses = client["em_blocks"]["attempts"].find({}, {"error.type": 1})
    found = Counter(TRACES.get(loss["error"]["type"], "failed attempts") for loss in losses)
    for log in output.glob("logs/*/worker-*.log"):
        lines = log.read_text(errors="replace").splitlines()
        found["late commits and writes refused"] += sum(
            line.startswith("error: ") and line.endswith(REFUSALS) for line in lines
        )
    return found


def _digests(output: Path) -> dict[str, str]:
    return {
        f"file {path.relative_to(output)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for container in CONTAINERS for path in sorted((output / container).rglob("*"))
        if path.is_file() and path.name != LEDGER  # which names the starts of a run
    }


def _chosen(document: dict, fields: tuple[str, ...]) -> str:
    return _text({field: document.get(field) for field in fields})


def _text(value: dict) -> str:
    return json.dumps(value, sort_keys=True, default=str)
