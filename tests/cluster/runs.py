"""Runs of the tests' small task on the cluster, started on its submit host as a user does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from blockwise import AddOne, add_one, block_documents, start_in_background, store_of
from cluster.mongod import PASSWORD, USER, Mongod
from cluster.slots import CONTROLLER
from cluster.slurm import Slurm
from em_blocks.volumes import Volume


class Site:
    """A cluster, its database, and a folder that all its hosts see."""

    def __init__(self, cluster: Slurm, mongod: Mongod, folder: Path):
        self.cluster, self.mongod, self.folder = cluster, mongod, folder

    @property
    def settings(self) -> dict:
        """What a config needs for six workers here. Its password is in the environment."""
        host = f"{self.cluster.address}:{self.cluster.database_port}"
        return {
            "launcher": "slurm", "num_workers": 6, "scheduler_host": self.cluster.address,
            "db_host": f"mongodb://${{DB_USER}}:${{DB_PASSWORD}}@{host}/?authSource=admin",
        }

    @property
    def environment(self) -> dict[str, str]:
        # The small task is in a module of the tests.
        modules = str(Path(__file__).parents[1])
        return {**self.cluster.environment(), "PYTHONPATH": modules, "DB_USER": USER,
                "DB_PASSWORD": PASSWORD}

    def task(self, raw: Volume, name: str = "a", **options) -> AddOne:
        """The small task, to be run by Slurm."""
        return add_one(raw, self.folder / name, **{**self.settings, **options})

    def start(self, task: AddOne, inside=()) -> subprocess.Popen:
        """Run a task on the submit host, by the command `inside` if there is one.

        What it prints goes to ``background.log``.
        """
        def popen(command, **options):
            return self.call(CONTROLLER, [*inside, *command], **options)

        return start_in_background(task, self.folder, popen=popen)

    def call(self, host: int, command, **popen) -> subprocess.Popen:
        """A user's command on a host, from a shell that knows the password."""
        return self.cluster.run_in(host, command, env=self.environment, **popen)

    def here(self, task: AddOne) -> AddOne:
        """The same task with its database as this process reaches it."""
        return task.model_copy(update={"db_host": self.mongod.local_uri})

    def blocks(self, task: AddOne) -> list[dict]:
        """Documents of its blocks; none before the run begins."""
        return list(block_documents(self.here(task)).values())

    def workers(self, task: AddOne, **query) -> list[dict]:
        """Documents of its workers."""
        with store_of(self.here(task)) as store:
            return list(store.workers.find({"run": task.run, **query}))

    def reason(self, task: AddOne) -> str:
        """Why it ended early, as its summary says."""
        return json.loads((task.home / "summary.json").read_text())["reason"]

    def log(self) -> str:
        """What the commands printed."""
        return (self.folder / "background.log").read_text()
