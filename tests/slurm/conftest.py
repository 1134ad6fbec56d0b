"""A fresh Slurm of three nodes for every test: it starts in little more than a second."""

import pytest

from blockwise import add_one, make_raw, run
from cluster.mongod import Mongod
from cluster.runs import Site
from cluster.slurm import Slurm

SHAPE = (40, 60, 50)  # 120 blocks


@pytest.fixture
def cluster(tmp_path):
    """Three hosts in a network of their own, idle."""
    with Slurm(tmp_path / "slurm", namespaces=True) as slurm:
        yield slurm


@pytest.fixture
def mongod(cluster, tmp_path):
    """A server with a password that all hosts of the cluster reach."""
    with Mongod(cluster, tmp_path / "mongod") as server:
        yield server


@pytest.fixture
def site(cluster, mongod, tmp_path):
    """All that a run needs: nodes, a database, a folder that they share."""
    return Site(cluster, mongod, tmp_path)


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("raw"), SHAPE)


@pytest.fixture(scope="session")
def undisturbed(raw, tmp_path_factory):
    """The small task after a run on this machine alone."""
    task = add_one(raw, tmp_path_factory.mktemp("undisturbed"), num_workers=2)
    assert run(task).ok
    return task
