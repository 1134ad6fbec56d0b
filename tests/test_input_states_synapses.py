"""Verbs that write about synapses, whatever becomes of the volumes that they read."""

import numpy as np
import pytest
from click.testing import CliRunner

import extracting
import mapping
from em_blocks.cli.main import main
from em_blocks.db.connect import connect
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import IncompleteInputError
from em_blocks.json_text import json_text
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.runtime.runs.verify import requeue_damaged
from em_blocks.tasks.synapses.cluster_clefts import ClusterClefts
from em_blocks.tasks.synapses.map_synapses import MapSynapses
from em_blocks.volumes import Volume
from mapping import RUN, make_supervoxels
from producing import Input, opened, run
from test_input_states import uri  # noqa: F401  the same server for all walks
from walking import SEEDS, Verb, Walk, assert_same, voxels


def rows(task, run):
    """All synapses of a run, by their ids; these begin anywhere."""
    with connect(task.db_host) as client:
        found = SynapseStore(client, task.db_name, run).read().sorted()
    columns = {name: getattr(found, name) for name in Synapses.columns() if name != "id"}
    return columns | {"id": found.id - found.id[:1]}


def vectors(seed):
    return np.random.default_rng(seed).integers(-20, 21, (3, *extracting.SHAPE)).astype("int8")


def extract(paths, folder, **options):
    return extracting.extraction(
        [paths["indicator"], paths["vectors"]], (4, 20, 17), run="verb", run_dir=str(folder),
        context_nm=[40, 4, 4], duplicate_distance_nm=60, max_extent_nm=[120, 60, 60], **options,
    )


EXTRACT = Verb(
    {"indicator": ((extracting.blobs(1), extracting.blobs(2)), {"scale": 255.0}),
     "vectors": ((vectors(1), vectors(2)), {"scale": extracting.VECTOR_SCALE})},
    extracting.FRAME, extract, lambda task: rows(task, "verb"), (5, 16, 16), (5, 16, 16),
)


# -- about synapses that were detected ------------------------------------------------------------


def detected(settings):
    """The same synapses in every database."""
    database = mapping.Database(settings["db_host"])
    database.name = settings["db_name"]
    database.fill(near_synapses())


def near_synapses(n=150):
    """Postsynaptic sites everywhere, the presynaptic ones some 60 nm away."""
    rng = np.random.default_rng(4)
    low = np.array(mapping.FRAME.offset)
    post = low + rng.uniform(0, 1, (n, 3)) * mapping.SHAPE * mapping.FRAME.voxel_size
    high = low + np.array(mapping.SHAPE) * mapping.FRAME.voxel_size - 1e-3
    pre = np.clip(post + rng.normal(0, (40, 30, 30), (n, 3)), low, high)
    return Synapses(id=rng.permutation(n) * 3, pre=pre, post=post)


def supervoxels(seed, folder):
    volume = make_supervoxels(folder, f"s{seed}", seed)
    return volume.read(volume.box)


def map_synapses(paths, folder, nodes, **options):
    return MapSynapses.from_dict({
        "kind": "map_synapses", "run": "verb", "run_dir": str(folder), "synapses": RUN,
        "labels": paths["labels"], "labels_are_segments": True, "search_radius_nm": 22.0,
        "block_shape": [5, 12, 13], "skeletons": {"path": str(nodes)}, **options,
    })


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A verb that maps sites to segments and skeletons."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent / "tasks" / "synapses"))
    from test_map_skeletons import make_nodes

    folder = tmp_path_factory.mktemp("labels")
    nodes, _ = make_nodes(folder)
    return Verb(
        {"labels": ((supervoxels(1, folder), supervoxels(2, folder)), {})}, mapping.FRAME,
        lambda paths, folder, **options: map_synapses(paths, folder, nodes, **options),
        lambda task: rows(task, RUN), (4, 9, 11), (4, 9, 11), prepare=detected,
    )


def clefts(seed):
    noise = extracting.blobs(seed, mapping.SHAPE, (0.6, 1.2, 1.2))
    return np.clip(noise.astype(int) // 2 + 60, 0, 255).astype(np.uint8)


def cluster(paths, folder, **options):
    return ClusterClefts.from_dict({
        "kind": "cluster_clefts", "run": "verb", "run_dir": str(folder), "synapses": RUN,
        "prediction": paths["prediction"], "threshold": 0.55, "max_distance_nm": 150.0,
        "output": str(folder / "clefts.zarr/ids"), "block_shape": (4, 8, 10),
        "chunk_shape": (4, 8, 10), **options,
    })


CLUSTER = Verb(
    {"prediction": ((clefts(1), clefts(2)), {"scale": 255})}, mapping.FRAME, cluster,
    lambda task: rows(task, RUN) | voxels(task.output), (4, 9, 11), (4, 9, 11), prepare=detected,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_extraction_refuses_an_input_or_finds_what_a_fresh_run_finds(seed, uri, tmp_path):  # noqa: F811
    Walk(EXTRACT, tmp_path, uri, seed).go()


@pytest.mark.parametrize("seed", SEEDS)
def test_mapping_refuses_an_input_or_maps_as_a_fresh_run(seed, mapped, uri, tmp_path):  # noqa: F811
    Walk(mapped, tmp_path, uri, seed).go()


@pytest.mark.parametrize("seed", SEEDS)
def test_clustering_refuses_an_input_or_does_what_a_fresh_run_does(seed, uri, tmp_path):  # noqa: F811
    Walk(CLUSTER, tmp_path, uri, seed).go()


# -- exports: the rows are the input ---------------------------------------------------------------


class Chain:
    """Detection and mapping of synapses, and the exports of what they left in the database."""

    def __init__(self, folder, uri, name, indicator, vectors, labels):  # noqa: F811
        self.folder, settings = folder / name, {"db_host": uri, "db_name": f"{name}{folder.name[-40:]}"}
        self.folder.mkdir()
        paths = {"indicator": indicator, "vectors": vectors}
        self.detection = extract(paths, self.folder, **settings)
        self.mapping = MapSynapses.from_dict({
            "kind": "map_synapses", "run": "map", "run_dir": str(self.folder), "synapses": "verb",
            "labels": labels, "labels_are_segments": True, "search_radius_nm": 22.0,
            "outside": "leave", "block_shape": [5, 16, 20], **settings,
        })
        self.config = self.folder / "detection.json"
        self.config.write_text(json_text(self.detection.model_dump(mode="json", exclude_unset=True)))

    def export(self, kind, *options):
        output = self.folder / f"{kind}.csv"
        output.unlink(missing_ok=True)
        arguments = ["export", kind, str(self.config), "--output", str(output), *options]
        found = CliRunner().invoke(main, arguments)
        assert (found.exit_code == 0) == output.exists(), found.output
        return found, output.read_text() if output.exists() else None

    def lose(self, n):
        """Blocks of the detection were found damaged."""
        with opened(self.detection) as store:
            for index in store.indices("done")[:n].tolist():
                requeue_damaged(store, self.detection.grid().block(index), "test")


def edges(text):
    return sorted(text.splitlines()[1:])


def test_exports_refuse_rows_that_are_missing_or_not_mapped_or_hold_what_fresh_runs_hold(
    uri, tmp_path  # noqa: F811
):
    settings, rng = {"db_host": uri, "db_name": f"made{tmp_path.name[-40:]}"}, np.random.default_rng(0)
    source = Input(
        tmp_path, "indicator", (extracting.blobs(1), extracting.blobs(2)), extracting.FRAME,
        block_shape=(5, 16, 16), chunk_shape=(5, 16, 16), settings=settings, rng=rng,
        attributes={"scale": 255.0},
    )
    vector_paths = extracting.predictions(tmp_path, extracting.blobs(1))
    ids = np.random.default_rng(2).integers(0, 9, (6, 10, 10)).astype(np.uint64)
    labels = Volume.create(str(tmp_path / "l.zarr/l"), shape=extracting.SHAPE, dtype="uint64",
                           frame=extracting.FRAME, chunk_shape=(5, 16, 16))
    labels.write(labels.box, ids.repeat(2, 0).repeat(4, 1).repeat(5, 2))
    chain = Chain(tmp_path, uri, "chain", source.path, vector_paths[1], labels.path)
    assert run(chain.detection)[-1].ok
    assert chain.export("synapses")[1] and chain.export("graph")[0].exit_code == 2  # mapped by nobody
    assert run(chain.mapping)[-1].ok
    for n, state in enumerate(["done", "redone", "replaced"]):
        source.become(state)
        chain.lose(2)
        found, _ = chain.export("graph")
        assert found.exit_code and "not done" in found.stderr.replace("\n", " ")
        assert chain.export("graph", "--unfinished")[0].exit_code == 0
        with pytest.raises(IncompleteInputError, match="synapses of run 'verb'"):
            run(chain.mapping)
        assert run(chain.detection)[-1].ok
        for kind in ("graph", "synapses"):
            found, _ = chain.export(kind)
            assert found.exit_code == 3 and "stored again" in found.stderr, found.output
        assert run(chain.mapping)[-1].ok
        fresh = Chain(tmp_path, uri, f"fresh{n}", source.path, vector_paths[1], labels.path)
        assert run(fresh.detection)[-1].ok and run(fresh.mapping)[-1].ok
        (_, ours), (_, theirs) = chain.export("graph"), fresh.export("graph")
        assert len(edges(ours)) > 3 and edges(ours) == edges(theirs)
        assert_same(rows(chain.detection, "verb"), rows(fresh.detection, "verb"))
