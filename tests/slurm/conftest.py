"""A fresh Slurm of three nodes for every test: it starts in little more than a second."""

import pytest

from cluster.mongod import Mongod
from cluster.slurm import Slurm


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
