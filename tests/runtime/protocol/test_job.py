"""What is handed to workers."""

import pytest

from blockwise import add_one, make_raw
from em_blocks.errors import ConfigError
from em_blocks.plugins import Registry
from em_blocks.runtime.protocol.job import Job


def job_of(task):
    return Job.of(task, measured={}, uri="mongodb://nowhere", epoch=1)


@pytest.mark.parametrize("launcher", ["local", "slurm", "lsf", "external"])
def test_a_worker_makes_the_same_task_again(tmp_path, launcher):
    task = add_one(make_raw(tmp_path), tmp_path / "a", launcher=launcher, add=3)
    assert job_of(task).task() == task


def test_a_worker_needs_not_the_package_of_the_launcher_that_started_it(tmp_path, monkeypatch):
    raw = make_raw(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "names", lambda self: [*self.builtin, "nice"])
        job = job_of(add_one(raw, tmp_path / "a", launcher="nice"))
    with pytest.raises(ConfigError, match="input should be 'local'"):
        add_one(raw, tmp_path / "a", launcher="nice")
    assert job.task() == add_one(raw, tmp_path / "a", launcher="external")
