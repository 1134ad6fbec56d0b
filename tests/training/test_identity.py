"""What decides a training: its data count by their content, wherever they lie."""

import json

from em_blocks.models.setup import Setup
from em_blocks.training.identity import differences, portable_config
from tiny_setup import tiny_config, write_setup

PLACE = [400, 46, 9.2]


def portable(folder, source, **training):
    values = tiny_config()
    values["training"] |= {"sources": [source], **training}
    return portable_config(Setup.from_folder(write_setup(folder, values)))


def test_every_path_of_a_source_is_relative_to_the_setup_but_urls(tmp_path):
    source = {
        "raw": str(tmp_path / "data/raw"), "masks": {"tissue": "s3://bucket/tissue"},
        "labels": {"cells": "../data/cells", "mito": {"path": "../data/mito", "offset": PLACE}},
        "synapses": "../data/pairs.csv",
    }
    made = portable(tmp_path / "tiny", source)["training"]["sources"][0]
    assert made == {
        "raw": "../data/raw", "masks": {"tissue": "s3://bucket/tissue"},
        "labels": {"cells": "../data/cells", "mito": {"path": "../data/mito", "offset": PLACE}},
        "synapses": "../data/pairs.csv", "begin": [0, 0, 0], "weight": 1.0,
    }
    assert json.loads(json.dumps(made)) == made


def test_keys_that_older_configs_do_not_have_are_not_in_their_identity(tmp_path):
    made = portable(tmp_path / "tiny", {"raw": "raw", "labels": "labels"})["training"]
    assert made["sources"] == [{"raw": "raw", "labels": "labels", "begin": [0, 0, 0], "weight": 1.0}]
    assert "sampling" not in made and (made["min_labelled"], made["reject_probability"]) == (0.5, 0.0)


def test_places_of_data_do_not_decide_and_what_is_done_with_them_does(tmp_path):
    def config(name, labels, **more):
        source = {"raw": f"/{name}/raw", "labels": labels, "masks": {"tissue": f"/{name}/t"}, **more}
        return {"config": portable(tmp_path / name, source)}

    one = config("one", {"labels": "/one/labels", "mito": "/one/mito"})
    moved = config("two", {"labels": "/two/labels", "mito": {"path": "/m", "offset": [0, 0, 40]}})
    assert differences(one, moved) == ([], [])
    scaled = config("three", {"labels": "/l", "mito": "/m"}, normalization="dtype")
    [changed] = differences(one, scaled).deciding
    assert changed == "config.training.sources.0.normalization: None -> dtype"
    labels, others = ({"data": {"sources": [{"labels": [it]}]}} for it in ("labels", "mito"))
    assert differences(labels, others).deciding == ["data.sources.0.labels.0: labels -> mito"]
