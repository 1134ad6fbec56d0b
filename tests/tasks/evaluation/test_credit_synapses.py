"""Credited synapses on real workers: any blocks, repeated and killed ones; and what is refused."""

import os
import signal

import numpy as np
import pytest

from blockwise import (
    assert_retry_equals_once,
    assert_same_result,
    run,
    start_in_background,
    store_of,
    wait_for,
    worker_pids,
)
from dilating import random_volume, sizes_of, slow_contacts, slow_credits
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError, SynapseFileError
from em_blocks.evaluation.connectivity import (
    credit_here,
    evaluate_connectivity,
    known_directions,
)
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.evaluation.cremi_marks import BACKGROUND, IGNORED
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.tasks.evaluation.credit_synapses import KINDS_OF_TABLES, CreditSynapses
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import write_synapses

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (8, 60, 64)
CHUNK = (3, 16, 20)


def make_volume(folder, name, values, frame=FRAME):
    volume = Volume.create(str(folder / "v.zarr" / name), shape=values.shape, dtype=values.dtype,
                           frame=frame, chunk_shape=CHUNK)
    volume.write(volume.box, values)
    return volume


@pytest.fixture(scope="module")
def arrays():
    """Neurons without any 0, true synapses, predicted ones; no test changes them."""
    neurons, truth = random_volume(0, shape=SHAPE)
    return {"neurons": neurons + np.uint64(7), "truth": truth.astype(np.uint32),
            "prediction": random_volume(1, shape=SHAPE)[1]}


@pytest.fixture(scope="module")
def paths(tmp_path_factory, arrays):
    """The three volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    return {name: make_volume(folder, name, values).path for name, values in arrays.items()}


def crediting(paths, folder, **options):
    """A task over the three volumes; an option of None leaves its key out."""
    values = {
        "kind": "credit_synapses", "run": "credited", "reach_voxels": 2, "contacts": True,
        "output": str(folder / "connectivity"), "block_shape": (4, 25, 30), **paths, **options,
    }
    return CreditSynapses.from_dict({k: v for k, v in values.items() if v is not None})


@pytest.fixture
def make(tmp_path, paths):
    """A function that makes a task in a folder of the test."""
    return lambda name="a", **options: crediting(paths, tmp_path / name, **options)


@pytest.fixture(scope="module")
def undisturbed(paths, tmp_path_factory):
    """A run of two workers that nothing disturbed, and that no test changes."""
    task = crediting(paths, tmp_path_factory.mktemp("undisturbed"), num_workers=2)
    assert run(task).ok
    return task


def slow_tables(arrays, n):
    """All tables of the whole volume, from dilated neurons, as dicts by their ids."""
    found = {"neurons": sizes_of(arrays["neurons"])}
    for side in ("truth", "prediction"):
        whole = {(id, 0, 0): voxels for (id,), voxels in sizes_of(arrays[side]).items()}
        found[side] = whole | slow_credits(arrays[side], arrays["neurons"], n)
    zones = slow_contacts(arrays["neurons"], n).items()
    return found | {"contacts": {pair: int(zone.sum()) for pair, zone in zones if zone.any()}}


def as_dicts(tables):
    """Tables of the whole volume, by name, as dicts."""
    found = {}
    for name, parts in tables.items():
        table = KINDS_OF_TABLES[name].merged(parts())
        keys = zip(*(getattr(table, id).tolist() for id in table.ids()), strict=True)
        found[name] = dict(zip(keys, table.voxels.tolist(), strict=True))
    return found


def stored(task):
    with store_of(task) as store:
        blocks = [task.grid().block(index) for index in store.indices(DONE)]
    return {
        spec.name: lambda name=spec.name: task.stored(name, blocks) for spec in task.output_specs()
    }


# -- any blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_any_blocks_credit_what_dilated_neurons_of_the_whole_volume_do(make, arrays, n):
    expected = slow_tables(arrays, n)
    assert len(expected["truth"]) > 50
    for shape in (SHAPE, (4, 25, 30), (1, 60, 7), (3, 16, 20), None):
        task = make(block_shape=shape, reach_voxels=n)
        assert as_dicts(credit_here(task, task.grid().blocks())) == expected


def test_neurons_are_read_around_synapses_at_faces_edges_and_corners(make, arrays, tmp_path):
    """Without contacts only chunks near a synapse are read: here every voxel at a corner of blocks."""
    synapses, block = np.zeros(SHAPE, np.uint16), (3, 16, 16)
    voxels = [v for v in np.ndindex(SHAPE) if all(
        i % b in (0, b - 1) and 0 < i < s - 1 for i, b, s in zip(v, block, SHAPE, strict=True)
    )]
    for id, voxel in enumerate(voxels, start=1):
        synapses[voxel] = id
    path = make_volume(tmp_path, "voxels", synapses).path
    task = make(truth=path, prediction=path, contacts=False, block_shape=block)
    found = as_dicts(credit_here(task, task.grid().blocks()))
    expected = slow_credits(synapses, arrays["neurons"], 2)
    assert {key: n for key, n in found["truth"].items() if key[1]} == expected
    assert len(expected) > len(voxels) > 100 and found["prediction"] == found["truth"]


def test_workers_credit_the_same(undisturbed, arrays):
    task = undisturbed
    assert as_dicts(stored(task)) == slow_tables(arrays, 2)
    here = credit_here(task, task.grid().blocks())
    assert evaluate_connectivity(task, stored(task)).document() == evaluate_connectivity(
        task, here
    ).document()


def test_blocks_that_are_done_again_count_once(make, undisturbed):
    assert_retry_equals_once(make(), undisturbed)


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_killed_and_run_again_equals_undisturbed(make, undisturbed, tmp_path, victim):
    task = make("killed")
    process = start_in_background(task, tmp_path)
    wait_for(lambda: len(list((tmp_path / "killed").rglob("*.parquet"))) > 9, timeout_s=240)
    if victim == "scheduler":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        for pid in worker_pids(process):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert run(task).ok
    assert_same_result(task, undisturbed)


# -- what counts ------------------------------------------------------------------------------


def test_background_of_cremi_is_no_synapse(make, arrays, tmp_path):
    task = make()
    expected = evaluate_connectivity(task, credit_here(task, task.grid().blocks())).document()
    cremi = arrays["truth"].astype(np.uint64)
    cremi[cremi == 0], cremi[0, :5, :5] = BACKGROUND, IGNORED
    plain = make_volume(tmp_path, "plain", np.where(cremi >= IGNORED, 0, cremi).astype(np.uint64))
    marked = make_volume(tmp_path, "marked", cremi)
    found = []
    for path in (plain.path, marked.path):
        task = make(truth=path)
        found.append(evaluate_connectivity(task, credit_here(task, task.grid().blocks())).document())
    assert found[0] == found[1]
    assert found[0]["prediction"] == expected["prediction"]


def test_what_is_left_out_changes_the_scores_not_the_counts(make, arrays):
    task = make()
    largest = max(sizes_of(arrays["neurons"]).items(), key=lambda item: item[1])[0][0]
    other = make(exclude=[largest], min_voxels=500, min_overlap=3, mode="best")
    assert task.identity() == other.identity()
    tables = credit_here(task, task.grid().blocks())
    every, some = evaluate_connectivity(task, tables), evaluate_connectivity(other, tables)
    sizes = [n for (id,), n in sizes_of(arrays["neurons"]).items() if id != largest]
    assert some.scores.n_neurons == sum(n >= 500 for n in sizes) < every.scores.n_neurons
    assert some.truth.n_pairs.max() == 1 < every.truth.n_pairs.max()
    assert make(reach_voxels=3).identity() != task.identity()


def test_contacts_are_those_of_neurons_that_are_not_left_out(make, arrays):
    task = make(min_voxels=500)
    found = evaluate_connectivity(task, credit_here(task, task.grid().blocks()))
    kept = set(found.neurons.ids.tolist())
    expected = {
        pair: zone.sum() for pair, zone in slow_contacts(arrays["neurons"], 2).items()
        if zone.any() and kept.issuperset(pair)
    }
    contacts = found.contacts
    assert dict(zip(zip(contacts.a.tolist(), contacts.b.tolist()), contacts.voxels)) == expected


# -- directions -------------------------------------------------------------------------------


def middle(*voxel):
    """Position in nm."""
    return np.add(FRAME.offset, np.multiply(np.add(voxel, 0.5), FRAME.voxel_size))


@pytest.fixture
def two_neurons(tmp_path):
    """Neurons 5 (left) and 9 (right of x = 10), a gap of 0, and synapses across the gap."""
    neurons = np.zeros((4, 20, 20), np.uint64)
    neurons[:, :, :9], neurons[:, :, 11:] = 5, 9
    synapses = np.zeros_like(neurons)
    synapses[1, 2:5, 9:11], synapses[1, 12:15, 9:11] = 3, 4
    return {name: make_volume(tmp_path, f"two/{name}", values).path
            for name, values in {"neurons": neurons, "truth": synapses, "prediction": synapses}.items()}


def partners(folder, name, pairs):
    """A file of partners between two voxels each."""
    table = Synapses(id=np.arange(len(pairs)), pre=[middle(*pre) for pre, _ in pairs],
                     post=[middle(*post) for _, post in pairs])
    write_synapses(folder / name, table)
    return str(folder / name)


def test_partners_give_directions_to_the_synapse_between_them(make, two_neurons, tmp_path):
    left, right = (1, 3, 4), (1, 3, 16)
    truth = partners(tmp_path, "truth.npz", [
        (left, right), (left, right), ((1, 13, 4), (1, 13, 16)),  # 5 -> 9 at both synapses
        (left, (1, 3, 5)), ((1, 18, 4), (1, 18, 16)), (left, (1, 3, 10)), (left, (1, 3, 99)),
    ])
    prediction = partners(tmp_path, "prediction.npz", [(right, left), ((1, 13, 4), (1, 13, 16))])
    task = make(mode="directed", truth_partners=truth, prediction_partners=prediction, min_voxels=1,
                **two_neurons)
    task.check()
    known = known_directions(task)
    assert np.stack(known["truth"]).T.tolist() == [[3, 5, 9], [3, 5, 9], [4, 5, 9]]
    found = evaluate_connectivity(task, credit_here(task, task.grid().blocks()))
    row = {id: n for n, id in enumerate(found.neurons.ids.tolist())}
    assert found.truth.matrix[row[5], row[9]] == 2 and found.truth.matrix.sum() == 2
    assert found.prediction.matrix[row[9], row[5]] == found.prediction.matrix[row[5], row[9]] == 1
    assert (found.scores.precision, found.scores.recall) == (0.5, 1.0)


def test_partners_are_read_before_anything_is_counted(make, two_neurons, tmp_path):
    (tmp_path / "bad.csv").write_text("pre_z,pre_y,pre_x,post_z,post_y,post_x\n1,2,3,4,5,six\n")
    good = partners(tmp_path, "good.npz", [((1, 3, 4), (1, 3, 16))])
    task = make(mode="directed", truth_partners=good, prediction_partners=str(tmp_path / "bad.csv"),
                **two_neurons)
    with pytest.raises(SynapseFileError, match=r"bad\.csv"):
        run(task)
    assert not (tmp_path / "a").exists()


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reach_voxels": 0}, "'reach_voxels'"), ({"reach_voxels": 101}, "'reach_voxels'"),
        ({"reach_nm": 20.0}, "one of reach_voxels and reach_nm is needed, got both"),
        ({"reach_voxels": None}, "is needed, got none"), ({"min_voxels": 0}, "'min_voxels'"),
        ({"mode": "directed"}, "directed needs both of truth_partners .* got 0"),
        ({"mode": "directed", "truth_partners": "a.npz"}, "needs both .* got 1"),
        ({"truth_partners": "a.npz"}, "the mode all needs none of"),
        ({"exclude": [2**64]}, "'exclude.0'"),
    ],
)
def test_wrong_keys_are_refused(make, options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options)


@pytest.mark.parametrize(
    ("shape", "voxel_size", "shift"),
    [((8, 60, 63), (40.0, 4.6, 4.6), (0, 0, 0)), (SHAPE, (40.0, 4.0, 4.6), (0, 0, 0)),
     (SHAPE, (40.0, 4.6, 4.6), (0, 1, 0))],
)
def test_volumes_on_other_grids_are_refused(make, tmp_path, shape, voxel_size, shift):
    frame = Frame(voxel_size, FRAME.to_roi(Box(shift, (1, 1, 1))).offset)
    other = make_volume(tmp_path, "other", np.zeros(shape, np.uint8), frame)
    with pytest.raises(ConfigError, match=r"other are not on one voxel grid: \(8, 60, 64\)"):
        make(truth=other.path).grid()


@pytest.mark.parametrize(("nm", "steps"), [(4.5, r"\(0, 0, 0\)"), (1e4, r"\(250, 2173, 2173\)")])
def test_a_reach_in_nm_must_fit_the_voxels(make, nm, steps):
    with pytest.raises(ConfigError, match=f"is {steps} voxels of .* at least one voxel along one axis"):
        make(reach_voxels=None, reach_nm=nm).check()
    make(reach_voxels=None, reach_nm=20.0).check()


def test_negative_ids_are_refused(make, arrays, tmp_path):
    signed = make_volume(tmp_path, "signed", arrays["truth"].astype(np.int64) - 7)
    task = make(prediction=signed.path)
    with pytest.raises(ConfigError, match=r"signed holds the id -7 at voxel"):
        credit_here(task, task.grid().blocks())


def test_no_neuron_left_is_an_error(make):
    task = make(min_voxels=10**9)
    with pytest.raises(ConfigError, match=r"No neuron is left in .*neurons: none has min_voxels"):
        evaluate_connectivity(task, credit_here(task, task.grid().blocks()))
