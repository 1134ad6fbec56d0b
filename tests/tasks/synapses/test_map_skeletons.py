"""Sites get the nearest skeleton of their segment, whatever the blocks are."""

import json

import numpy as np
import pytest
from rich.console import Console

import mapping
from em_blocks.db.connect import connect
from em_blocks.errors import ConfigError, SynapseFileError
from em_blocks.kernels.synapses.table import TOO_FAR, UNMAPPED, Synapses
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.runtime.runs.preflight import check_task
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.synapses.map_synapses import MapSynapses
from em_blocks.volumes.synapse_files import write_synapses
from mapping import (
    FRAME,
    SHAPE,
    assert_same_rows,
    here,
    make_lut,
    make_supervoxels,
    make_synapses,
    mapping_settings,
)

uri, database = mapping.uri, mapping.database
BOUND, NOISE = 60.0, 2


def make_nodes(folder):
    """A JSON list of nodes at random places, a few outside of the labels."""
    rng = np.random.default_rng(3)
    positions = FRAME.offset + rng.uniform(-0.1, 1.1, (400, 3)) * SHAPE * FRAME.voxel_size
    nodes = [
        {"id": n, "position": position, "neuron_id": int(rng.integers(1, 6)), "parent_id": None}
        for n, position in enumerate(positions.tolist())
    ]
    path = folder / "nodes.json"
    path.write_text(json.dumps(nodes))
    return path, nodes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Supervoxels, table, nodes, and true synapses whose ends anchor skeletons 8 and 9."""
    folder = tmp_path_factory.mktemp("inputs")
    volume = make_supervoxels(folder)
    lut = make_lut(volume, folder, segment=lambda ids: ids % 5 + 1)
    path, nodes = make_nodes(folder)
    truth = make_synapses(60, seed=9).select(np.arange(20, 32))
    truth = truth.replace(pre_skeleton=np.full(12, 8), post_skeleton=np.where(truth.id > 2**52, 9, -1))
    write_synapses(folder / "truth.json", truth)
    return volume, lut, path, nodes, truth, folder / "truth.json"


@pytest.fixture
def make(inputs, database, tmp_path):
    volume, lut, path, _, _, truth = inputs

    def make(name="a", skeletons=None, **options):
        chosen = {"path": str(path), "max_distance_nm": BOUND, "noise_nodes": NOISE,
                  "truth": str(truth), **(skeletons or {})}
        options = {"lut": lut, "skeletons": chosen, **options}
        return MapSynapses.from_dict(mapping_settings(volume, tmp_path / name, database, **options))

    return make


def slow_skeletons(inputs, rows, side):
    """One site after the other: count, filter and measure all nodes."""
    volume, _, _, nodes, truth, _ = inputs
    labels = volume.read(volume.box)

    def segment(position):
        voxel = np.floor(as_voxels([position], voxel_size=FRAME.voxel_size, offset=FRAME.offset))[0]
        if (voxel < 0).any() or (voxel >= SHAPE).any():
            return -1
        label = int(labels[tuple(voxel.astype(int))])
        return label % 5 + 1 if label else 0

    points = [(n["position"], n["neuron_id"], False) for n in nodes]
    points += [(p, s, True) for p, s in zip(truth.pre.tolist(), truth.pre_skeleton.tolist())]
    points += [(p, s, True) for p, s in zip(truth.post.tolist(), truth.post_skeleton.tolist()) if s > 0]
    points = [(p, s, anchor, segment(p)) for p, s, anchor in points]
    found = []
    for position, own in zip(getattr(rows, side), getattr(rows, f"{side}_segment").tolist()):
        candidates = []
        for skeleton in {p[1] for p in points}:
            members = [p for p in points if p[1] == skeleton and p[3] == own and own > 0]
            traced = [p for p in members if not p[2]]
            if len(traced) > NOISE or len(traced) < len(members):
                candidates += members
        if not candidates:
            found.append(UNMAPPED)
            continue
        distance, skeleton = min((np.linalg.norm(p[0] - position), p[1]) for p in candidates)
        found.append(TOO_FAR if distance > BOUND else skeleton)
    return np.array(found)


def assert_mapped(inputs, database):
    rows = database.rows()
    for side in ("pre", "post"):
        found = getattr(rows, f"{side}_skeleton")
        np.testing.assert_array_equal(found, slow_skeletons(inputs, rows, side))
        assert {UNMAPPED, TOO_FAR} < set(found.tolist())


@pytest.mark.parametrize("block_shape", [SHAPE, (5, 12, 13), (3, 7, 8)])
def test_any_blocks_find_the_skeletons_of_a_search_through_all_nodes(
    inputs, database, make, block_shape
):
    database.fill(make_synapses(80))
    counts = [here(step, database) for step in make(block_shape=block_shape).steps()]
    assert_mapped(inputs, database)
    assert sum(counts[3].values()) == 160 and counts[3]["too_far"] and counts[3]["mapped"]


def test_workers_do_all_steps_and_synapses_stored_anew_get_their_skeletons_again(
    inputs, database, make
):
    synapses = make_synapses(80)
    database.fill(synapses)
    steps = make().steps()
    reports = run_steps(steps, console=Console(quiet=True))
    assert [report.ok for report in reports] == [True] * 4
    assert_mapped(inputs, database)
    rows = database.rows()
    with connect(database.uri) as client:
        database.store(client).replace_block("0/0/1", synapses.select([1, 4]))
    reports = run_steps(steps, console=Console(quiet=True))
    assert all(report.ok for report in reports)
    computed = [report.blocks["computed"] for report in reports]
    assert computed[1:3] == [0, 0] and 0 < computed[0] == computed[3] <= 4
    assert_same_rows(database.rows(), rows.select(np.isin(rows.id, database.rows().id)))


def test_swc_files_are_named_by_their_neurons(make, tmp_path):
    folder = tmp_path / "swc"
    folder.mkdir()
    (folder / "23829.swc").write_text("1 0 0.5 2 3 1 -1\n2 0 0.6 2 3 1 1\n")
    task = make(skeletons={"path": str(folder), "unit": "um", "truth": None})
    nodes = task.skeletons.nodes
    assert nodes.skeleton.tolist() == [23829, 23829]
    assert nodes.positions.tolist() == [[3000, 2000, 500], [3000, 2000, 600]]
    (folder / "a neuron.swc").write_text("1 0 0.5 2 3 1 -1\n")
    with pytest.raises(ConfigError, match=r"a neuron\.swc .* id of its neuron"):
        check_task(make(skeletons={"path": str(folder)}).steps()[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a JSON list"),
        ("[]", "no list of nodes"),
        ('[{"position": [1, 2, 3], "neuron_id": 3}, {"position": [1, 2], "neuron_id": 3}]',
         r"row 2 .*position \[1, 2\] is not a position"),
        ('[{"position": [1, 2, 3]}]', "row 1 .*'neuron_id' is missing"),
        ('[{"position": [1, 2, 3], "neuron_id": -3}]', "row 1 .* -3 is negative"),
    ],
)
def test_a_malformed_list_of_nodes_names_the_row(make, tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises((ConfigError, SynapseFileError), match=message):
        check_task(make(skeletons={"path": str(path)}).steps()[1])


def test_true_synapses_without_skeletons_anchor_nothing(make, tmp_path):
    path = tmp_path / "plain.json"
    write_synapses(path, Synapses(id=[1], pre=[FRAME.offset], post=[FRAME.offset]))
    with pytest.raises(ConfigError, match="have no skeletons"):
        check_task(make(skeletons={"truth": str(path)}).steps()[1])


def test_skeletons_need_segments(make):
    with pytest.raises(ConfigError, match="'skeletons' are found by segment"):
        make(lut=None)
