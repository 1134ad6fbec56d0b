"""Every shipped config loads, and the schemas say what the models say."""

import json
from pathlib import Path

import jsonschema
import pytest

from em_blocks.cli.config_tables import tables_of, with_tables
from em_blocks.cli.schemas import as_text, schemas
from em_blocks.config import read_json
from em_blocks.evaluation.partners_config import EvaluateSynapses
from em_blocks.models.config import SetupConfig
from em_blocks.tasks import task_class

ROOT = Path(__file__).parents[1]
CONFIGS = [path for path in sorted(ROOT.glob("configs/*.json")) if ".schema." not in path.name]
# Scores of files: no blocks, so no run either.
EVALUATIONS = [path for path in CONFIGS if read_json(path)["kind"] == "evaluate_synapses"]
JOBS = [path for path in CONFIGS if path not in EVALUATIONS]
SETUPS = sorted(ROOT.glob("setups/*/config.json"))


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """Configs name their data by this variable; no test here opens the data."""
    monkeypatch.setenv("EM_BLOCKS_DATA", str(tmp_path))


def test_there_are_configs_and_setups():
    assert JOBS and EVALUATIONS and SETUPS


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_a_job_config_loads(path):
    assert task_class(read_json(path)["kind"]).from_file(path).run


@pytest.mark.parametrize("path", EVALUATIONS, ids=name_of)
def test_a_config_of_an_evaluation_loads(path):
    config = EvaluateSynapses.from_file(path)
    assert config.protocol(config.thresholds()[0]).filters


@pytest.mark.parametrize("path", SETUPS, ids=name_of)
def test_a_setup_config_loads(path):
    assert SetupConfig.from_file(path).name == path.parent.name


@pytest.mark.parametrize("path", CONFIGS + SETUPS, ids=name_of)
def test_a_config_agrees_with_its_schema(path):
    values = read_json(path)
    schema = schemas()[values.get("kind", "setup")]
    jsonschema.Draft202012Validator(schema).validate(values)


@pytest.mark.parametrize("name", schemas())
def test_the_stored_schemas_are_those_of_the_models(name):
    stored = (ROOT / f"configs/{name}.schema.json").read_text()
    assert stored == as_text(schemas()[name]), "run `make schemas` and commit the result"


def test_a_schema_refuses_what_its_model_refuses():
    values = read_json(ROOT / "configs/fib25_affinities.json")
    validator = jsonschema.Draft202012Validator(schemas()["predict"])
    for wrong in ({"blok_shape": [1, 2, 3]}, {"block_shape": [64, 0, 64]}, {"precision": "fp8"}):
        assert not validator.is_valid(values | wrong), wrong
    assert json.dumps(validator.schema)  # plain JSON: no model types are left in it


def test_the_tables_of_the_docs_are_those_of_the_models():
    page = (ROOT / "docs/configs.md").read_text()
    assert set(tables_of(page)) == {"run", *schemas()} - {"setup"}
    assert with_tables(page, schemas()) == page, "run `make schemas` and commit the result"


def test_a_table_shows_keys_below_keys_values_and_defaults():
    rows = with_tables("<!-- keys: extract_synapses -->\n<!-- end -->", schemas()).splitlines()
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[1::2] for row in rows if " | " in row}
    assert cells["`detection.site`"] == ['`"edt"`, `"centroid"`, `"peak"`', '`"edt"` |']
    assert cells["`detection.radius_nm`"] == ["3 x number", "required |"]
    assert cells["`max_distance_nm`"] == ["number", "none |"]
    assert "`num_workers`" not in cells
