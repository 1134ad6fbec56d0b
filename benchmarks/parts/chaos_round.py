"""One round of a chaos campaign: the chain of commands, repeated until each has succeeded."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from parts.chaos_chain import VERBS
from parts.chaos_faults import Disturber
from parts.chaos_places import COMMAND, Local, wait_until

CALM_S = 240.0
"""Seconds after which a round is disturbed no further ..."""
PATIENCE_S = 360.0
"""... and seconds in which it must end then; undisturbed it takes about one minute."""
GONE_S = 90.0
"""Time in which workers without a scheduler must end, and servers without a client."""
POLL_S = 0.1


class Hang(Exception):
    """A round that does not end although nothing disturbs it any more."""


@dataclass
class Round:
    """The chain in one place.

    Parameters
    ----------
    place : Local
    configs : list of Path
        In the order of the chain.
    disturber : Disturber
    log : Path
        What the commands say.
    until : float
        When the campaign ends, by the monotonic clock.

    Attributes
    ----------
    starts : int
        Commands that were started.
    problems : list of str
        What a user should never see.
    """

    place: Local
    configs: list[Path]
    disturber: Disturber
    log: Path
    until: float
    starts: int = 0
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run the chain to its end, and heal everything. Raises `Hang`."""
        self._calm = min(self.until, time.monotonic() + CALM_S)
        try:
            for config, verb in zip(self.configs, VERBS.values(), strict=True):
                self._finish(verb, config)
        finally:
            self.disturber.heal_all()
        self.place.settle()
        if not wait_until(lambda: not self.place.workers(), GONE_S):
            self.problems.append(
                "workers that do not end without a scheduler: "
                + "; ".join(f"{p.pid} {p.status()}" for p in self.place.workers())
            )

    def _finish(self, verb: str, config: Path) -> None:
        """Repeat a command, as a user would, until it says that everything is done."""
        again = [verb, str(config), "--json"]
        arguments = again
        while True:
            code, reports = self._once(arguments)
            if code == 0 and arguments is again:
                return
            held = any(report["blocks"]["quarantined"] for report in reports)
            arguments = ["retry", str(config), "--json"] if held and arguments is again else again
            self._pause(1.0)

    def _once(self, arguments: list[str]) -> tuple[int, list[dict]]:
        answer = self.log.with_suffix(".answer")
        size = self.log.stat().st_size if self.log.exists() else 0
        self._note(f"$ em-blocks {' '.join(arguments)}")
        process = self.place.start(arguments, self.log, answer)
        self.starts += 1
        while process.poll() is None:
            self._pause(POLL_S)
        reports = _reports(answer)
        ends = [(report["run"], report["state"], report["reason"]) for report in reports]
        self._note(f"exit {process.returncode}: {ends}")
        self._judge(process, reports, self.log.read_text(errors="replace")[size:])
        return process.returncode, reports

    def _pause(self, seconds: float) -> None:
        """Wait, while faults come and go."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now > self._calm + PATIENCE_S:
                raise Hang
            self.disturber.poll(hurt=now < self._calm)
            time.sleep(min(POLL_S, seconds))

    def _judge(self, process: subprocess.Popen, reports: list[dict], said: str) -> None:
        """A command may fail, but it says why in a paragraph; asked to stop, it stops in order."""
        if "Traceback (most recent call last)" in said:
            self.problems.append(f"a traceback, exit {process.returncode}: {said[-3000:]}")
        elif process.returncode not in (0, 1, 2, 3, -signal.SIGKILL):
            self.problems.append(f"exit {process.returncode}: {said[-1000:]}")
        stopped = process.pid == self.place.asked_to_stop and process.returncode == 1
        for report in reports if stopped else ():
            if report["reason"] == "interrupted" and report["state"] != "stopped":
                self.problems.append(f"interrupted, but {report['run']} is {report['state']}")

    def _note(self, line: str) -> None:
        with open(self.log, "a") as file:
            print(time.strftime("%H:%M:%S"), line, file=file)

    def state(self) -> str:
        """Everything that tells why a round hangs."""
        parts = []
        for config in self.configs:
            parts.append(_output([*COMMAND, "status", str(config), "--json"], self.place))
        try:
            with self.place.database() as client:
                parts += [str(document) for document in client["em_blocks"].workers.find()]
        except Exception as error:  # any error is part of the state
            parts.append(f"database: {error!r}")
        for process in self.place.marked(""):
            try:
                parts.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
            except psutil.Error:
                continue
        return "\n".join(parts)


def _reports(answer: Path) -> list[dict]:
    """Return what a command printed as JSON; nothing if it did not get so far."""
    try:
        values = json.loads(answer.read_text())
    except ValueError:
        return []
    return values if isinstance(values, list) else [values]


def _output(command: list[str], place: Local) -> str:
    process = place.launch(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return f"no answer: {' '.join(command[-3:])}"

