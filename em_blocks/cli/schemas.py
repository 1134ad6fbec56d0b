"""``python -m em_blocks.cli.schemas``: JSON Schemas and tables of all configs, from their models."""

from __future__ import annotations

import json
from pathlib import Path

import click

from em_blocks.cli.config_tables import with_tables
from em_blocks.tasks import TASKS, task_class

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict]:
    """Return one JSON Schema per kind of config."""
    from em_blocks.evaluation.instance_search.config import SearchInstances
    from em_blocks.evaluation.object_classes.config import ClassifyObjects, ClusterObjects
    from em_blocks.evaluation.partners_config import EvaluateSynapses
    from em_blocks.models.config import SetupConfig

    models = {kind: task_class(kind) for kind in TASKS.builtin} | {
        "evaluate_synapses": EvaluateSynapses, "search_instances": SearchInstances,
        "cluster_objects": ClusterObjects,
        "classify_objects": ClassifyObjects, "setup": SetupConfig,
    }
    return {
        name: {"$schema": DIALECT, **model.model_json_schema()} for name, model in models.items()
    }


def as_text(schema: dict) -> str:
    """Return a schema as it is stored."""
    return json.dumps(schema, indent=2) + "\n"


@click.command()
@click.argument("folder", default="configs", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write the schemas to FOLDER, and the tables in docs/configs.md beside it."""
    found = schemas()
    texts = {folder / f"{name}.schema.json": as_text(schema) for name, schema in found.items()}
    page = folder.absolute().parent / "docs/configs.md"
    if page.exists():
        texts[page] = with_tables(page.read_text(), found)
    for path, text in texts.items():
        path.write_text(text)
        click.echo(path)


if __name__ == "__main__":
    main()
