"""Verbs that score, audit, show or learn from volumes, whatever becomes of these."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import segmenting
from em_blocks.cli.main import main
from em_blocks.errors import IncompleteInputError
from em_blocks.evaluation.connectivity import evaluate_connectivity
from em_blocks.evaluation.instances import score as score_instances
from em_blocks.evaluation.segmentation import score
from em_blocks.json_text import json_text
from em_blocks.models.sources import DataSource
from em_blocks.tasks.evaluation.count_instances import CountInstances
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses
from em_blocks.training.data.sources import open_source
from em_blocks.volumes import Volume
from producing import Input, in_process
from test_input_states import FRAME, SHAPE, affinities, segment, uri  # noqa: F401  one server
from walking import SEEDS, Verb, Walk

BLOCK = (4, 11, 20)


def neurons(seed):
    return segmenting.neurons(SHAPE, seed=seed)


def objects(seed):
    """A few boxes, one id each."""
    rng, found = np.random.default_rng(seed), np.zeros(SHAPE, np.uint32)
    for id in range(1, 30):
        corner = [int(rng.integers(0, n - 4)) for n in SHAPE]
        found[tuple(slice(c, c + int(rng.integers(2, 5))) for c in corner)] = id
    return found


def versions(**made):
    return {name: ((make(1), make(2)), {}) for name, make in made.items()}


def count(paths, folder, **options):
    return CountOverlaps.from_dict({
        "kind": "count_overlaps", "run": "verb", "truth": paths["truth"], "border_nm": 12.0,
        "segmentations": {"0.5": paths["segments"]}, "output": str(folder / "evaluation"),
        "block_shape": [5, 12, 24], **options,
    })


def credit(paths, folder, **options):
    return CreditSynapses.from_dict({
        "kind": "credit_synapses", "run": "verb", "reach_voxels": 3, "contacts": True,
        "output": str(folder / "connectivity"), "block_shape": [5, 12, 24], "min_voxels": 1,
        **paths, **options,
    })


def instances(paths, folder, **options):
    return CountInstances.from_dict({
        "kind": "count_instances", "run": "verb", "output": str(folder / "evaluation"),
        "block_shape": [5, 12, 24], "border": "leave-out", **paths, **options,
    })


def compared(task):
    blocks = list(task.grid().blocks())
    found = score_instances(task, task.stored(blocks))
    return {"json": np.array(json_text(found.document()))}


def counted(task):
    blocks = list(task.grid().blocks())
    found = score(task, {name: lambda n=name: task.stored(n, blocks) for name in task.segmentations})
    return {"json": np.array(json_text(found[0].document()))}


def credited(task):
    blocks, names = list(task.grid().blocks()), [spec.name for spec in task.output_specs()]
    found = evaluate_connectivity(task, {n: lambda n=n: task.stored(n, blocks) for n in names})
    return {"json": np.array(json_text(found.document()))}


VERBS = {
    "segmentation": Verb(versions(segments=neurons, truth=lambda seed: neurons(seed + 7)), FRAME, count,
                         counted, BLOCK, (4, 11, 10)),
    "instances": Verb(
        versions(prediction=objects, truth=lambda seed: objects(seed + 7)), FRAME, instances, compared,
        BLOCK, (4, 11, 10),
    ),
    "connectivity": Verb(
        versions(neurons=neurons, truth=objects, prediction=lambda seed: objects(seed + 7)), FRAME,
        credit, credited, BLOCK, (4, 11, 10),
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", VERBS)
def test_an_evaluation_refuses_an_input_or_gives_the_scores_of_a_fresh_one(
    name, seed, uri, tmp_path  # noqa: F811
):
    Walk(VERBS[name], tmp_path, uri, seed).go()


# -- commands that keep nothing ------------------------------------------------------------------

COMMANDS = {
    "segmentation": ["evaluate", "segmentation", "--segmentation", "{a}", "--truth", "{b}"],
    "connectivity": ["evaluate", "connectivity", "--neurons", "{b}", "--truth", "{a}", "--prediction",
                     "{a}", "--min-voxels", "1"],
    "instances": ["evaluate", "instances", "--prediction", "{a}", "--truth", "{b}"],
    "clefts": ["evaluate", "clefts", "--prediction", "{a}", "--truth", "{b}"],
}


def command(name, **paths):
    return CliRunner().invoke(main, [*(a.format(**paths) for a in COMMANDS[name]), "--json"])


def made(folder, uri, rng, name, make, **options):  # noqa: F811
    return Input(
        folder, name, (make(1), make(2)), FRAME, block_shape=BLOCK, chunk_shape=(4, 11, 10), rng=rng,
        settings={"db_host": uri, "db_name": f"made_{folder.name[-40:]}"}, **options,
    )


def plain(source, folder):
    """A copy that no run made."""
    volume = Volume.open(source.path)
    copy = Volume.create(str(folder / f"plain{len(list(folder.iterdir()))}.zarr/v"),
                         shape=volume.shape, dtype=str(volume.dtype), frame=volume.frame,
                         chunk_shape=volume.chunk_shape, channels=volume.channels)
    copy.write(copy.box, volume.read(volume.box))
    return copy.path


@pytest.mark.parametrize("seed", SEEDS)
def test_a_command_refuses_an_input_or_prints_the_scores_of_a_plain_copy(
    seed, uri, tmp_path  # noqa: F811
):
    rng = np.random.default_rng(seed)
    inputs = {"a": made(tmp_path, uri, rng, "a", objects), "b": made(tmp_path, uri, rng, "b", neurons)}
    for state in rng.permutation(Input.STATES):
        inputs[rng.choice(["a", "b"])].become(state)
        paths = {name: source.path for name, source in inputs.items()}
        complete = all(source.is_complete for source in inputs.values())
        copies = {name: plain(source, tmp_path) for name, source in inputs.items()} if complete else {}
        for name in COMMANDS:
            found = command(name, **paths)
            if complete:
                assert found.exit_code == 0, (state, found.output)
                wanted = command(name, **copies).stdout
                for side, path in copies.items():
                    wanted = wanted.replace(path, paths[side])
                assert json.loads(found.stdout) == json.loads(wanted), (state, name)
            else:
                assert found.exit_code == 3 and "not complete" in found.stderr, (state, name)
                assert not found.stdout


@pytest.mark.parametrize("seed", SEEDS)
def test_an_audit_refuses_what_is_not_of_the_affinities_or_gives_the_figures_of_fresh_segments(
    seed, uri, tmp_path  # noqa: F811
):
    rng = np.random.default_rng(seed)
    shifts = {"neighborhood": [list(s) for s in segmenting.NEIGHBORHOOD]}
    source = made(tmp_path, uri, rng, "a", affinities, attributes=shifts)
    settings = {"db_host": uri, "db_name": f"audit{tmp_path.name[-40:]}"}
    current = False
    for state in ["done", "moved", "redone", *rng.permutation(["partly", "replaced", "forgotten"])]:
        source.become(state)
        current = current and state not in ("redone", "replaced")
        config = config_of(source, tmp_path / "verb", settings)
        found = audit(config)
        assert (found.exit_code == 0) == (current and source.is_complete), (state, found.output)
        if not source.is_complete:
            source.done()
        segmented(config)
        current = True
        fresh = config_of(source, tmp_path / f"fresh-{state}", settings, run=f"fresh-{state}")
        segmented(fresh)
        assert json.loads(audit(config).stdout)["rates"] == json.loads(audit(fresh).stdout)["rates"]


def config_of(source, folder, settings, **options):
    folder.mkdir(exist_ok=True)
    task = segment({"affinities": source.path}, folder, thresholds=[0.5], **settings, **options)
    path = folder / "segment.json"
    path.write_text(json_text(task.model_dump(mode="json", exclude_unset=True)))
    return path


def audit(config):
    return CliRunner().invoke(main, ["audit", str(config), "--samples", "3", "--json"])


def segmented(config):
    with in_process():
        found = CliRunner().invoke(main, ["segment", str(config), "--json"])
    assert found.exit_code == 0, found.output


def test_training_refuses_an_incomplete_volume_and_view_says_so(uri, tmp_path):  # noqa: F811
    def bytes_(seed):
        return objects(seed).astype(np.uint8)

    source = made(tmp_path, uri, np.random.default_rng(0), "a", bytes_)
    for state in Input.STATES:
        source.become(state)
        shown = CliRunner().invoke(main, ["view", source.path, "--json"])
        assert shown.exit_code == 0
        assert ("lacks" in shown.stderr) == (not source.is_complete), state
        data = DataSource(raw=source.original.path, labels=source.path)
        if source.is_complete:
            open_source(data, FRAME.voxel_size)
        else:
            with pytest.raises(IncompleteInputError, match="training data"):
                open_source(data, FRAME.voxel_size)
