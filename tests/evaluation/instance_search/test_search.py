"""The search for thresholds: scores are those of the instances that segment-instances writes."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.evaluation.instance_search import search as searching
from em_blocks.evaluation.instance_search.config import SearchInstances, chosen
from em_blocks.evaluation.instance_search.decoder import Decoder
from em_blocks.evaluation.instance_search.results import write_results
from em_blocks.evaluation.instance_search.search import Found, Tried, search
from em_blocks.geometry import Frame
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import match_objects, overlaps
from em_blocks.kernels.instances.boundaries import FEATURES
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.instances.segment_instances import SegmentInstances
from em_blocks.volumes import Volume
from searching import FRAME, GRID, SHAPE, search_config, search_task, segment_config, write_maps


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def found(sources, tmp_path_factory):
    return search(search_task(*sources, tmp_path_factory.mktemp("search")))


def blockwise(config):
    """The objects that the blocks of segment-instances write."""
    for step in config.steps():
        for spec in step.output_specs():
            spec.create(step.grid(), "fingerprint")
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                process(block, BlockReport())
    return read(config.output + "/objects")


def read(path):
    volume = Volume.open(path)
    return volume.read(volume.box)


def test_all_combinations_are_tried_and_the_best_has_the_highest_mean_of_f1(found):
    assert len(found.tried) == 8 and found.n_cached == 0
    assert len({json.dumps(tried.values) for tried in found.tried}) == 8
    scores = [np.mean([score["fscore"] for score in tried.scores]) for tried in found.tried]
    assert found.best.score == max(scores) > min(scores)
    assert [score["iou"] for score in found.best.scores] == [0.5, 0.75]


@pytest.mark.parametrize("which", ["best", "worst"])
def test_scores_are_those_of_the_instances_that_blocks_make(found, sources, tmp_path, which):
    tried = found.best if which == "best" else min(found.tried, key=lambda t: t.score)
    config = chosen(found.task.segment, tried.values).model_dump(mode="json", exclude_defaults=True)
    task = SegmentInstances.from_dict(
        config | {"kind": "segment_instances", "output": str(tmp_path / "o.zarr")}
    )
    table = count_overlaps(segmentation=blockwise(task), truth=read(sources[1]))
    for score in tried.scores:
        expected = match_objects(overlaps(table), iou=score["iou"])
        assert {name: getattr(expected, name) for name in score} == score


def test_a_decoder_makes_what_blocks_make_whatever_it_made_before(found, sources, tmp_path):
    with searching._opened(found.task) as trial:
        decoder = trial._decoder
        for number, (values, options) in enumerate([
            ({"min_size": 300}, {}), ({"seeds.min_size": 60}, {"fill_holes": False}),
            ({"smooth_nm": (0.0, 20.0, 20.0)}, {"max_hole": 40}),
        ]):
            start = segment_config(sources[0], tmp_path / str(number), **options)
            task = chosen(SegmentInstances.from_dict(start), values)
            np.testing.assert_array_equal(decoder.instances(task), blockwise(task))


def test_fitted_weights_are_those_of_the_best_choice_and_blocks_merge_alike(sources, tmp_path):
    grid = {"threshold": [0.6], "seeds": {
        "foreground": [0.7], "distance": [0.1], "cores": {"contour": [0.05, 0.2], "distance": [0.6]}}}
    segment = segment_config(sources[0], tmp_path, seeds={"min_size": 5})
    found = search(search_task(*sources, tmp_path, search=grid, segment=segment, fit_merge=True))
    plain = search(search_task(*sources, tmp_path, search=grid, segment=segment))
    assert len(found.tried) == 2 and found.best.score > plain.best.score
    assert plain.n_cached == 0 and plain.config.merge is None
    assert found.config.seeds.cores.contour == found.best.values["seeds.cores.contour"]
    [_, _, _, best] = write_results(found)
    config = SegmentInstances.from_file(best)
    assert config.merge == found.config.merge and set(config.merge.weights) == set(FEATURES)
    labels = blockwise(config)
    table = count_overlaps(segmentation=labels, truth=read(sources[1]))
    assert [score["fscore"] for score in found.best.scores] == [
        match_objects(overlaps(table), iou=iou).fscore for iou in (0.5, 0.75)]
    with searching._opened(found.task) as trial:
        np.testing.assert_array_equal(trial._decoder.instances(config), labels)
    again = search(found.task)
    assert again.n_cached == 2 and again.config == found.config


def test_only_what_changes_is_computed_again(found):
    reads, maps = [], {"foreground": np.random.default_rng(0).integers(0, 256, (6, 20, 20), np.uint8)}

    def read_maps(smooth_nm):
        reads.append(smooth_nm)
        return maps

    decoder, segment = Decoder(read_maps, FRAME.voxel_size), found.task.segment.model_copy(update={
        "contour": None, "distance": None})
    first = decoder._landscape(segment)
    assert decoder._landscape(chosen(segment, {"min_size": 1, "seeds.min_size": 7})) is first
    labels = decoder._of_any_size(segment)
    assert decoder._of_any_size(chosen(segment, {"min_size": 1})) is labels
    assert decoder._of_any_size(chosen(segment, {"seeds.min_size": 7})) is not labels
    assert decoder._landscape(chosen(segment, {"threshold": 0.3})) is not first
    assert reads == [(0.0, 0.0, 0.0)]
    decoder.instances(chosen(segment, {"smooth_nm": (0.0, 30.0, 30.0)}))
    assert len(reads) == 2


def test_a_repeated_search_computes_only_what_is_new(sources, tmp_path, monkeypatch):
    first = search(search_task(*sources, tmp_path))
    computed = []
    original = Decoder.instances
    monkeypatch.setattr(Decoder, "instances",
                        lambda self, options: computed.append(options) or original(self, options))
    again = search(search_task(*sources, tmp_path))
    assert computed == [] and again.n_cached == 8
    assert [tried.document() for tried in again.tried] == [tried.document() for tried in first.tried]
    more = search(search_task(*sources, tmp_path, search=GRID | {"min_size": [60, 200, 400]}))
    assert len(more.tried) == 12 and more.n_cached == 8
    assert {options.min_size for options in computed} == {400}


def test_other_maps_other_truth_and_other_ious_are_computed_again(sources, tmp_path):
    one = {"search": {"threshold": [0.5]}}
    search(search_task(*sources, tmp_path, **one))
    assert search(search_task(*sources, tmp_path, **one)).n_cached == 1
    maps, truth = write_maps(tmp_path, seed=9)
    assert search(search_task(maps, truth, tmp_path, **one)).n_cached == 0
    assert search(search_task(sources[0], truth, tmp_path, **one)).n_cached == 0
    assert search(search_task(*sources, tmp_path, **one, ious=[0.3])).n_cached == 0
    assert search(search_task(*sources, tmp_path, **one, ignore=[1])).n_cached == 0


def test_a_line_that_a_killed_search_left_is_computed_again(sources, tmp_path):
    search(search_task(*sources, tmp_path))
    file = tmp_path / "found/tried.jsonl"
    file.write_text(file.read_text()[:-40])
    again = search(search_task(*sources, tmp_path))
    assert again.n_cached == 7
    assert search(search_task(*sources, tmp_path)).n_cached == 8


def test_ids_that_are_ignored_are_no_truth(sources, tmp_path):
    ids, sizes = np.unique(read(sources[1]), return_counts=True)
    largest = int(ids[1:][np.argmax(sizes[1:])])
    one = {"search": {"threshold": [0.6]}}
    every, fewer = (search(search_task(*sources, tmp_path, ignore=ignore, **one))
                    for ignore in ([], [largest]))
    assert fewer.n_truth == every.n_truth - 1 == len(ids) - 2
    (all_at_half, _), (at_half, _) = every.best.scores, fewer.best.scores
    assert at_half["tp"] + at_half["fn"] == all_at_half["tp"] + all_at_half["fn"] - 1


def test_of_equal_choices_the_one_amid_good_ones_is_best(found):
    values, scores = [0.2, 0.3, 0.4, 0.5, 0.6], [0.9, 0.1, 0.8, 0.9, 0.9]
    grid = found.task.grid.model_copy(update={
        "threshold": tuple(values), "seeds": type(found.task.grid.seeds)(), "min_size": None})
    task = found.task.model_copy(update={"search": grid})
    tried = [Tried({"threshold": value}, [{"fscore": score}], False)
             for value, score in zip(values, scores, strict=True)]
    assert Found(task, tried, 1).best.values == {"threshold": 0.6}
    assert Found(task, tried[:4], 1).best.values == {"threshold": 0.5}


def test_a_specimen_ends_the_search_as_it_ends_instances(sources, tmp_path):
    inside = np.zeros(SHAPE, np.uint8)
    inside[:, :, :60] = 1
    mask = Volume.create(str(tmp_path / "in.zarr/mask"), shape=SHAPE, dtype="uint8", frame=FRAME,
                         chunk_shape=SHAPE)
    mask.write(mask.box, inside)
    segment = segment_config(sources[0], tmp_path, mask=mask.path)
    task = search_task(*sources, tmp_path, segment=segment)
    with searching._opened(task) as trial:
        found = trial._decoder.instances(task.segment)
    np.testing.assert_array_equal(found, blockwise(task.segment))
    assert found[:, :, :60].any() and not found[:, :, 60:].any()


# -- results and the command -----------------------------------------------------------------


def test_results_are_a_table_a_picture_and_a_config_that_can_be_run(found):
    paths = {path.name: path for path in write_results(found)}
    document = json.loads(paths["search.json"].read_text())
    assert document["best"]["values"] == found.best.values and len(document["choices"]) == 8
    rows = list(csv.DictReader(paths["search.csv"].read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == sorted((t.score for t in found.tried), reverse=True)
    assert float(rows[0]["threshold"]) == found.best.values["threshold"]
    assert np.asarray(Image.open(paths["search.png"])).std() > 5
    best = SegmentInstances.from_file(paths["best.json"])
    assert best == found.config
    assert best.seeds.contour == found.best.values["seeds.contour"]
    assert best.block_shape == found.task.segment.block_shape


def run(*arguments):
    result = CliRunner().invoke(main, ["search-instances", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_prints_the_best_and_takes_the_path_of_a_config(sources, tmp_path):
    (tmp_path / "segment.json").write_text(json.dumps(segment_config(sources[0], tmp_path)))
    values = search_config(*sources, tmp_path) | {"segment": "segment.json"}
    del values["output"]
    (tmp_path / "search.json").write_text(json.dumps(values))
    result = run(tmp_path / "search.json")
    assert result.exit_code == 0, result.output
    assert "8 combinations" in result.stdout and "0 of them known" in result.stdout
    again = run(tmp_path / "search.json", "--json", "--set", "search.threshold=[0.5]")
    document = json.loads(again.stdout)
    assert document["tried"] == document["cached"] == 4
    (folder,) = tmp_path.rglob("mito.search")
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.json", "search.csv", "search.json", "search.png", "tried.jsonl"]


@pytest.mark.parametrize(("change", "words"), [
    ({"search": {"seeds": {"contour": [0.2]}}, "no": "contour"}, "no map 'contour'"),
    ({"search": {"threshold": [0.9], "seeds": {"foreground": [0.5]}}}, "No combination can be tried"),
    ({"search": {"seeds": {"cores": {"contour": [0.2]}}}, "no": "contour"}, "seeds.cores.contour has"),
    ({"fit_merge": True, "segment.merge": {"bias": 0.0, "weights": {}}}, "leave one out"),
    ({"search": {"threshold": []}}, "search.threshold"),
    ({"search": {"threshhold": [0.5]}}, "threshhold"),
    ({"search": {"threshold": [1.5]}}, "search.threshold"),
    ({"truth": "nothing.zarr/there"}, "nothing.zarr/there"),
    ({"ignore": list(range(1, 200))}, "has no instance in the region"),
])
def test_what_cannot_be_searched_is_one_paragraph_and_writes_nothing(sources, tmp_path, change, words):
    change = dict(change)
    missing = change.pop("no", None)
    maps = {name: path for name, path in sources[0].items() if name != missing}
    merge = change.pop("segment.merge", None)
    values = search_config(maps, sources[1], tmp_path) | change
    values["segment"] |= {"merge": merge} if merge else {}
    (tmp_path / "c.json").write_text(json.dumps(values))
    result = run(tmp_path / "c.json")
    assert result.exit_code == 2 and words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_truth_of_other_voxels_or_of_a_part_is_refused(sources, tmp_path):
    for name, frame, words in (
        ("coarse", Frame((30.0, 28.0, 28.0), FRAME.offset), "voxel by voxel"),
        ("beside", Frame(FRAME.voxel_size, (330.0, 28.0, -14.0)), "ends inside"),
    ):
        made = Volume.create(str(tmp_path / f"t.zarr/{name}"), shape=SHAPE, dtype="uint64", frame=frame,
                             chunk_shape=SHAPE)
        with pytest.raises(GeometryError, match=words):
            search(search_task(sources[0], made.path, tmp_path))


def test_a_region_that_does_not_fit_into_memory_is_refused(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "MOST_VOXELS", 10_000)
    with pytest.raises(ConfigError, match="10000 are the most"):
        search(search_task(*sources, tmp_path))


def test_results_never_lie_in_an_input(sources, tmp_path):
    values = search_config(*sources, tmp_path, output=sources[1] + "/found")
    (tmp_path / "c.json").write_text(json.dumps(values))
    result = run(tmp_path / "c.json")
    assert result.exit_code == 2 and "lies in the input 'truth'" in result.stderr


@pytest.mark.parametrize(("changed", "words"), [
    ({"seeds": {"neck_nm": 80}}, "cuts seeds at necks"),
    ({"foreground": None, "segmentation": "s.zarr/ids"}, "no thresholds to search"),
])
def test_what_the_search_would_compute_otherwise_is_refused(tmp_path, changed, words):
    segment = {"kind": "segment_instances", "run": "r", "foreground": "p.zarr/f",
               "output": str(tmp_path / "o.zarr")} | changed
    values = {"kind": "search_instances", "truth": "t.zarr/ids",
              "segment": {key: value for key, value in segment.items() if value is not None}}
    with pytest.raises(ConfigError, match=words):
        SearchInstances.from_dict(values)
