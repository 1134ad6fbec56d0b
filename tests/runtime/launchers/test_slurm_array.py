"""Workers in job arrays, with a queue of Slurm that does as the tests say."""

import os
import stat
from types import SimpleNamespace

import pytest

from blockwise import add_one, make_raw
from em_blocks.errors import RunFailedError
from em_blocks.runtime.launchers import slurm_array as arrays_module
from em_blocks.runtime.launchers.slurm_array import SlurmArrayLauncher

COMMANDS = {
    "sbatch": 'cat > {here}/script; [ -e {here}/closed ] && {{ echo "Invalid account" >&2; exit 1; }}; '
              "wc -l < {here}/calls",
    "squeue": "[ -e {here}/closed ] && exit 1; cat {here}/queue",
    "scancel": ":",
}


class Slurm:
    """What the stand-ins were asked, and what they answer."""

    def __init__(self, here):
        self.here = here
        (here / "bin").mkdir()
        (here / "queue").touch()
        for name, does in COMMANDS.items():
            path = here / "bin" / name
            path.write_text(
                f'#!/bin/sh\necho "{name} $*" >> {here}/calls\n{does.format(here=here)}\n'
            )
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def calls(self, name):
        lines = (self.here / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith(name)]

    def queue(self, *workers):
        (self.here / "queue").write_text("\n".join(workers))

    def close(self):
        """The controller does not answer."""
        (self.here / "closed").touch()

    def open(self):
        (self.here / "closed").unlink()

    @property
    def script(self):
        return (self.here / "script").read_text()


class Gateway:
    """Told which workers are dismissed."""

    def __init__(self):
        self.dismissed, self.hosts_lost = [], set()

    def dismiss(self, slot, reason):
        self.dismissed.append(slot)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "POLL_S", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return Slurm(tmp_path)


@pytest.fixture
def pool(tmp_path):
    task = add_one(make_raw(tmp_path), tmp_path / "a", launcher="slurm", cluster={"array": True})
    return SlurmArrayLauncher(task, tmp_path / "session.json", tmp_path / "logs", 3)


@pytest.fixture
def site():
    return Gateway(), SimpleNamespace(unproductive=0, ended=lambda slot: None)


def test_all_workers_are_one_submission(slurm, pool, site):
    pool.poll(*site)
    assert slurm.calls("sbatch") == ["sbatch --parsable"]
    assert "#SBATCH --array=1-3\n" in slurm.script and f"--job-name={pool.name}" in slurm.script
    assert str(pool.session) in slurm.script
    slurm.queue("1_1", "1_2", "1_3")
    pool.poll(*site)
    assert len(slurm.calls("sbatch")) == 1


def test_what_is_missing_is_submitted_anew_away_from_lost_hosts(slurm, pool, site):
    pool.poll(*site)
    slurm.queue("1_2")
    site[0].hosts_lost = {"n2", "n1"}
    pool.poll(*site)
    assert slurm.calls("sbatch")[1] == "sbatch --parsable --exclude=n1,n2"
    assert "#SBATCH --array=1-2\n" in slurm.script


def test_a_worker_whose_job_is_gone_for_good_is_dismissed(slurm, pool, site):
    pool.poll(*site)
    slurm.queue("1_1", "1_2", "5_1")
    pool.poll(*site)
    assert site[0].dismissed == []  # its last words may be on the way
    pool.poll(*site)
    assert site[0].dismissed == ["1_3"]
    pool.poll(*site)
    assert site[0].dismissed == ["1_3"]


def test_a_controller_that_does_not_answer_changes_nothing(slurm, pool, site):
    pool.poll(*site)
    slurm.queue("1_1", "1_2", "1_3")
    slurm.close()
    for _ in range(3):
        pool.poll(*site)
    slurm.open()
    pool.poll(*site)
    assert site[0].dismissed == [] and len(slurm.calls("sbatch")) == 1


def test_a_submission_that_is_refused_ends_the_run_with_the_words_of_slurm(slurm, pool, site):
    slurm.close()
    with pytest.raises(RunFailedError, match="Invalid account Check 'cluster'") as caught:
        pool.poll(*site)
    assert caught.value.exit_code == 1


def test_at_the_end_nothing_stays_in_the_queue(slurm, pool, site, monkeypatch):
    monkeypatch.setattr(arrays_module, "STOP_S", 0.0)
    pool.stop()
    assert not (slurm.here / "calls").exists()  # nothing was submitted
    pool.poll(*site)
    pool.stop()
    assert slurm.calls("scancel") == [
        f"scancel --state=PENDING --name={pool.name}", f"scancel --name={pool.name}"
    ]
