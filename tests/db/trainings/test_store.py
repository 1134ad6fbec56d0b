"""The run database against a real mongod: numbers, revisions, curves."""

import threading
from datetime import timedelta

import pytest

from em_blocks.db.connect import connect
from em_blocks.db.server import embedded_server
from em_blocks.db.trainings.series import CHUNK, Series
from em_blocks.db.trainings.store import DEAD_AFTER_S, TrainingStore


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with embedded_server(tmp_path_factory.mktemp("db")) as uri, connect(uri) as client:
        yield client


@pytest.fixture
def store(client, request):
    name = f"runs_{abs(hash(request.node.name))}"
    store = TrainingStore(client[name])
    store.prepare()
    yield store
    client.drop_database(name)


def document(**values):
    return {"config": {}, "state": "running", "setup": "tiny"} | values


def test_trainings_that_begin_at_once_get_numbers_of_their_own_without_gaps(store):
    numbers, together = {}, threading.Barrier(8)

    def begin(n):
        together.wait()
        for part in range(5):
            numbers[f"{n}/{part}"] = store.begin(f"{n}/{part}")[0]

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(numbers.values()) == list(range(1, 41))


def test_a_training_that_begins_again_keeps_its_number_and_its_revisions_rise(store):
    first, again = store.begin("a"), store.begin("a")
    assert first[0] == again[0] == 1
    assert again[1] - first[1] == 2**32


def test_a_document_never_becomes_older(store):
    number, revision = store.begin("a")
    store.save(number, document(iteration=8), revision + 2)
    store.save(number, document(iteration=4), revision + 1)
    assert store.training(number)["iteration"] == 8
    store.save(number, document(iteration=9), revision + 3)
    assert store.training(number)["iteration"] == 9


def test_a_forgotten_training_leaves_nothing_but_its_number(store):
    numbers = []
    for uid in ("a", "b", "c"):
        number, revision = store.begin(uid)
        store.save(number, document(), revision + 1)
        store.save_chunks(number, {("loss", 0): Series([1], [0.5], [0.0])}, revision)
        store.save_prediction(f"p of {uid}", {"training": {"uid": uid}})
        numbers.append(number)
    for number in numbers[:0:-1]:  # the last one too: its number must not be given again
        store.forget(number)
        store.forget(number)
    assert [one["_id"] for one in store.recorded_trainings()] == [1]
    assert store.training(3) is None and store.training_of("c") is None
    assert store.curves(3) == {} and store.curves(1)["loss"].values == [0.5]
    assert store.predictions_of("c") == [] and len(store.predictions_of("a")) == 1
    assert store.begin("c")[0] == 4
    store.forget(99)
    assert len(store.recorded_trainings()) == 1


def test_what_others_noted_stays_when_the_document_is_replaced(store):
    number, revision = store.begin("a")
    store.note(number, "sweep", {"best": 3})
    store.save(number, document(), revision + 1)
    assert store.training(number)["notes"] == {"sweep": {"best": 3}}


def test_names_with_dots_and_dollars_and_large_ids_are_stored(store):
    number, revision = store.begin("a")
    values = {"made": {"config.json": "$name"}, "ids": [2**64 - 1, 2**63 - 1]}
    store.save(number, document(**values), revision + 1)
    found = store.training(number)
    assert found["made"] == {"config.json": "$name"}
    assert found["ids"] == [str(2**64 - 1), 2**63 - 1]


def test_a_running_training_that_is_silent_is_dead_and_a_finished_one_is_not(store):
    number, revision = store.begin("a")
    store.save(number, document(), revision + 1)
    assert store.training(number)["state"] == "running"
    beat = store.training(number)["heartbeat"] - timedelta(seconds=DEAD_AFTER_S + 1)
    store.trainings.update_one({"_id": number}, {"$set": {"heartbeat": beat}})
    assert store.training(number)["state"] == "dead"
    store.beat(number)
    assert store.recorded_trainings()[0]["state"] == "running"
    store.save(number, document(state="finished"), revision + 2)
    store.trainings.update_one({"_id": number}, {"$set": {"heartbeat": beat}})
    assert store.training(number)["state"] == "finished"


def pieces(name, whole):
    return {(name, index): chunk for index, chunk in enumerate(whole.chunks())}


def curve(n, value=0.5):
    return Series(list(range(n)), [value] * n, [1.0e9 + i for i in range(n)])


def test_curves_of_several_chunks_and_trainings_come_back_whole(store):
    one, two = store.begin("a"), store.begin("b")
    long, short = curve(2 * CHUNK + 1), curve(3, None)
    store.save_chunks(one[0], pieces("train/loss", long), one[1])
    store.save_chunks(one[0], pieces("validation/f1", short), one[1])
    store.save_chunks(two[0], pieces("train/loss", curve(1, 0.25)), two[1])
    assert store.curves(one[0]) == {"train/loss": long, "validation/f1": short}
    assert store.curves(one[0], ["validation/f1"]) == {"validation/f1": short}
    assert store.curves(two[0]) == {"train/loss": curve(1, 0.25)}


def test_a_chunk_that_arrives_late_changes_nothing(store):
    number, revision = store.begin("a")
    store.save_chunks(number, pieces("loss", curve(5)), revision + 2)
    store.save_chunks(number, pieces("loss", curve(4)), revision + 1)
    assert len(store.curves(number)["loss"]) == 5


def test_chunks_of_an_earlier_start_are_dropped(store):
    number, revision = store.begin("a")
    store.save_chunks(number, pieces("loss", curve(CHUNK + 5)), revision + 1)
    _, later = store.begin("a")
    store.save_chunks(number, pieces("loss", curve(7)), later + 1)
    store.drop_chunks_before(number, later)
    assert len(store.curves(number)["loss"]) == 7


def test_a_prediction_that_is_stored_again_keeps_its_number(store):
    first = store.save_prediction("x", {"training": {"uid": "a"}, "output": "o1"})
    second = store.save_prediction("y", {"training": {"uid": "a"}, "output": "o2"})
    again = store.save_prediction("x", {"training": {"uid": "a"}, "output": "o3"})
    assert (first, second, again) == (1, 2, 1)
    assert [one["output"] for one in store.predictions_of("a")] == ["o3", "o2"]
    assert store.predictions_of("b") == []
