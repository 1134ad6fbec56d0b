"""In what trainings differ."""

from em_blocks.training.records.compare import ABSENT, differing, leaves


def test_leaves_are_named_by_their_path():
    found = dict(leaves({"a": {"b": [1, {"c": None}]}, "d": "x", "e": {}}))
    assert found == {"a.b.0": 1, "a.b.1.c": None, "d": "x"}


def test_only_settings_data_and_code_count_and_only_where_they_differ():
    one = {
        "config": {"training": {"learning_rate": 0.1, "seed": 1}}, "seed": 1, "command": "a",
        "git": {"em_blocks": {"commit": "a", "dirty": False}, "setup": None}, "history": [1],
    }
    two = {
        "config": {"training": {"learning_rate": 0.2, "seed": 1}}, "seed": 1, "command": "b",
        "git": {"em_blocks": {"commit": "b", "dirty": True}, "setup": None},
        "data": {"sources": [{"sha256": "0"}]},
    }
    assert differing([one, two, one]) == {
        "config.training.learning_rate": [0.1, 0.2, 0.1],
        "git.em_blocks.commit": ["a", "b", "a"],
        "data.sources.0.sha256": [ABSENT, "0", ABSENT],
    }
    assert differing([one, dict(one)]) == {}
