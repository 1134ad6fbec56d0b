"""Hurt real runs at random moments, and compare everything with an undisturbed run.

Every round runs ``em-blocks predict``, ``segment`` and ``extract-synapses`` over a small generated
volume; a command that dies or fails is started again, as a user would. Meanwhile processes are killed
and frozen, the database crashes, the disk fills up, and, in the rounds on a real Slurm of three nodes
in network namespaces, nodes die and links are cut. At the end every file of the outputs, every synapse
and every document must be the same as without faults.

Needs root and Slurm, for namespaces and a small disk of its own; ``--quick`` needs neither.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from parts.chaos_chain import make_inputs, write_configs
from parts.chaos_faults import Disturber
from parts.chaos_places import Cluster, Local
from parts.chaos_results import Result, traces
from parts.chaos_round import Hang, Round

DISK_MB = 400
LOCAL_EVERY = 3
SHOWN = 20


class Campaign:
    """Rounds until the time is over.

    Parameters
    ----------
    folder : Path
        Scratch space; removed at the end, but for what belongs to rounds with differences.
    seed : int
    minutes : float
    quick : bool
        Only rounds on this machine.
    """

    def __init__(self, folder: Path, *, seed: int, minutes: float, quick: bool):
        self.folder, self.minutes, self.quick = folder, minutes, quick
        self.output, self.faults = folder / "disk" / "run", folder / "faults.jsonl"
        self.rng = random.Random(seed)
        self.counts, self.traces = Counter(), Counter()
        self.rounds = self.starts = self.differences = 0

    def run(self) -> None:
        """All rounds; how they ended is in the attributes."""
        with ExitStack() as stack:
            local = Local(self.folder, self.output)
            stack.callback(local.end)
            stack.enter_context(_small_disk(self.folder / "disk"))
            self.faults.touch()
            make_inputs(self.folder / "inputs")
            expected = self._undisturbed(local)
            cluster = None
            if not self.quick:
                cluster = Cluster(self.folder, self.output)
                stack.callback(cluster.end)
            until = time.monotonic() + 60 * self.minutes
            while time.monotonic() < until:
                here = cluster is None or self.rounds % LOCAL_EVERY == LOCAL_EVERY - 1
                self._round(local if here else cluster, expected, until)

    def _undisturbed(self, place: Local) -> Result:
        begin = time.monotonic()
        disturber = Disturber(place, self.rng, self.faults, -1)
        expected, problems = self._result(place, disturber, until=begin)
        if problems:
            raise RuntimeError(f"the undisturbed run had problems: {problems}")
        print(f"undisturbed: {len(expected.files)} files, {len(expected.rows)} synapses, "
              f"{len(expected.documents)} documents in {time.monotonic() - begin:.0f} s", flush=True)
        return expected

    def _round(self, place: Local, expected: Result, until: float) -> None:
        begin, disturber = time.monotonic(), Disturber(place, self.rng, self.faults, self.rounds)
        before = self.starts
        found, problems = self._result(place, disturber, until)
        differences = problems + (found.differences(expected) if found else [])
        self.counts += disturber.counts
        self.differences += len(differences)
        print(f"round {self.rounds} ({place.name}): {disturber.counts.total()} faults, "
              f"{self.starts - before} commands, {time.monotonic() - begin:.0f} s, "
              f"{len(differences) or 'no'} differences", flush=True)
        if differences:
            self._keep(place, differences)
        self.rounds += 1

    def _result(
        self, place: Local, disturber: Disturber, until: float
    ) -> tuple[Result | None, list[str]]:
        """Return what a chain leaves behind, if it ends, and what went wrong on the way."""
        place.begin()
        configs = write_configs(
            self.folder / "configs", inputs=self.folder / "inputs", output=self.output,
            **place.options(),
        )
        log = self.folder / "logs" / f"round{self.rounds}-{place.name}.log"
        log.parent.mkdir(exist_ok=True)
        chain = Round(place, configs, disturber, log, until)
        try:
            chain.run()
        except Hang:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "hang.txt").write_text(chain.state())
            place.abort()
            return None, [*chain.problems, f"the round did not end: {self.output}/hang.txt"]
        finally:
            self.starts += chain.starts
        with place.database() as client:
            self.traces += traces(self.output, client)
            return Result.of(configs, self.output, client), chain.problems

    def _keep(self, place: Local, differences: list[str]) -> None:
        """Put a round aside, with what is wrong with it."""
        kept = self.folder.with_name(f"{self.folder.name}-kept-{os.getpid()}-{self.rounds}")
        kept.mkdir()
        for name in ("disk/run", "configs", "logs"):
            shutil.copytree(self.folder / name, kept / Path(name).name, ignore_dangling_symlinks=True,
                            ignore=lambda *_: ["mongodb-*.sock"])
        shutil.copy(self.faults, kept)
        (kept / "differences.txt").write_text("\n".join(differences))
        with open(kept / "database.txt", "w") as file, place.database() as client:
            for name in sorted(client["em_blocks"].list_collection_names()):
                file.writelines(f"{name} {row}\n" for row in client["em_blocks"][name].find())
        for line in differences[:SHOWN]:
            print(f"  {line[:500]}")
        print(f"  {len(differences)} in all; everything is in {kept}", flush=True)

    def report(self) -> None:
        print(f"\n{'fault':32} injected")
        for kind, count in self.counts.most_common():
            print(f"{kind:32} {count:8}")
        print(f"\n{'consequence':44} seen")
        for kind, count in self.traces.most_common():
            print(f"{kind:44} {count:4}")
        total = self.counts.total()
        print(f"\n{total} faults in {self.rounds} rounds with {self.starts} commands; differences: "
              f"{self.differences}")
        print(json.dumps({
            "name": "differences from an undisturbed run after faults", "value": self.differences,
            "unit": "differences", "against": total, "ratio": self.differences / max(1, total),
        }))


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own that can be filled; only for root. Else a folder of the big one."""
    folder.mkdir()
    if os.geteuid() != 0:
        yield
        return
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "em_blocks-chaos", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _scratch(seed: int) -> Iterator[Path]:
    """The folder of a seed, for one campaign at a time; what a killed one left there goes first."""
    folder = Path(tempfile.gettempdir()) / f"em_blocks-chaos-{seed}"
    with open(folder.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"a campaign with the seed {seed} is running already") from None
        _clean(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            _clean(folder)


def _clean(folder: Path) -> None:
    Local(folder, folder / "disk" / "run").end()
    while (folder / "disk").is_mount():
        subprocess.run(["umount", "--lazy", str(folder / "disk")], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


@click.command()
@click.option("--minutes", type=float, default=5.0, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of moments, kinds and victims.")
@click.option("--quick", is_flag=True, help="Only rounds with workers on this machine.")
def main(minutes: float, seed: int, quick: bool) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    with _scratch(seed) as folder:
        campaign = Campaign(folder, seed=seed, minutes=minutes, quick=quick)
        try:
            campaign.run()
        except KeyboardInterrupt:
            campaign.report()  # what was found until then counts
            raise
        campaign.report()  # of a campaign that broke there is no result
    sys.exit(1 if campaign.differences else 0)


if __name__ == "__main__":
    main()
