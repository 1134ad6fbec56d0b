"""Measure how well `em-blocks plan` estimates the seconds of a command.

For every config: `em-blocks plan CONFIG --json`, then the command itself, which starts from nothing;
what is compared is the wall time of the whole command, as its user waits for it, with `total.wall_s`.
By default, the steps of the demo on its generated volume: affinities, segments, maps of synapses,
synapses, mapping. Where EM_BLOCKS_DATA names the folder of real volumes, also the affinities (fp32) and
the segments of `fib25_medulla`; `--quick` takes 128 x 192 x 192 voxels of it instead of all. Both
sides are measured one after the other, so on a machine that others use, single figures mean little: use
`--repeat`, of which medians are shown. `at equal speed` is the ratio if the machine had been as slow
during the run as during its plan, by how long 20 ms of work took twice a second (1.0 to 1.5 times as
long while nothing else runs); the last line does not use it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from em_blocks.cli.demo import main as demo
from em_blocks.cli.demo import synapses

ROOT = Path(__file__).parents[1]
MAIN = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]
LIMIT = 0.30
WORK_S = 0.02
QUICK_ROI = {"offset": [0, 0, 0], "shape": [1280, 1920, 1920]}


class Case(NamedTuple):
    """A command on a config."""

    verb: str
    config: Path


class Found(NamedTuple):
    """Seconds of a command, and of its plan; how slow the machine was meanwhile."""

    predicted: float
    real: float
    planning: float
    slow_plan: float
    slow_run: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.real

    @property
    def at_equal_speed(self) -> float:
        return self.ratio * self.slow_run / self.slow_plan


class Slowness(threading.Thread):
    """Yield the ratio of time to processor time of a little work, while this is open."""

    def __init__(self):
        super().__init__(daemon=True)
        self._seconds: list[float] = []
        self._ended = threading.Event()

    def __enter__(self) -> Slowness:
        self.start()
        return self

    def __exit__(self, *exc) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while True:
            start, worked = time.perf_counter(), time.thread_time() + WORK_S
            while time.thread_time() < worked:
                pass
            self._seconds.append(time.perf_counter() - start)
            if self._ended.wait(0.5):
                return

    @property
    def value(self) -> float:
        return statistics.mean(self._seconds) / WORK_S


def run(*arguments: str | Path) -> float:
    """Seconds of a command, which must end well."""
    start = time.monotonic()
    done = subprocess.run([*MAIN, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}: {done.stderr}{done.stdout}")
    return time.monotonic() - start


def measured(case: Case) -> Found:
    start = time.monotonic()
    with Slowness() as in_plan:
        done = subprocess.run(
            [*MAIN, "plan", str(case.config), "--json"], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        sys.exit(f"plan {case.config}: {done.stderr}")
    planning = time.monotonic() - start
    with Slowness() as in_run:
        real = run(case.verb, case.config)
    predicted = json.loads(done.stdout)["total"]["wall_s"]
    return Found(predicted, real, planning, in_plan.value, in_run.value)


def demo_cases(folder: Path) -> Iterator[Case]:
    """Yield the commands of the demo, each after the one before."""
    blocks = demo.BLOCK_SHAPE
    segments = "segmentation.zarr/segments/0.8"
    for verb, name, values in (
        ("predict", "predict", demo.prediction()),
        ("segment", "segment", demo.segmentation()),
        ("predict", "predict_synapses", synapses.prediction(blocks)),
        ("extract-synapses", "extract_synapses", synapses.extraction(blocks)),
        ("map-synapses", "map_synapses", synapses.mapping(segments)),
    ):
        yield Case(verb, demo.write_config(folder, f"{name}.json", values))


def real_cases(folder: Path, quick: bool) -> Iterator[Case]:
    """Affinities and segments of the real volume; configs as they are, in another place."""
    (folder / "configs").mkdir(parents=True)
    names = ("fib25_ingest", "fib25_affinities_fp32", "fib25_segment")
    ingest, predict, segment = (
        json.loads((ROOT / f"configs/{name}.json").read_text()) for name in names
    )
    predict["setup"] = str(ROOT / "setups/affinities")
    predict |= {"roi": QUICK_ROI} if quick else {}
    segment["affinities"] = f"{predict['output']}/affinities"
    paths = [demo.write_config(folder / "configs", f"{name}.json", values) for name, values in
             zip(names, (ingest, predict, segment), strict=True)]
    run("ingest", paths[0])
    yield Case("predict", paths[1])
    yield Case("segment", paths[2])


def shown(case: Case, found: Found) -> None:
    print(
        f"{case.verb} {case.config.name}: predicted {found.predicted:.1f} s, real {found.real:.1f} s, "
        f"ratio {found.ratio:.2f}, at equal speed {found.at_equal_speed:.2f}; planning "
        f"{found.planning:.1f} s; machine {found.slow_plan:.1f} and {found.slow_run:.1f} times as slow",
        flush=True,
    )


@click.command()
@click.option("--quick", is_flag=True, help="A part of the real volume.")
@click.option("--no-demo", is_flag=True, help="Only the real volume.")
@click.option("--no-real", is_flag=True, help="Only the demo.")
@click.option("--repeat", default=1, show_default=True, help="Medians of so many rounds.")
def main(quick: bool, no_demo: bool, no_real: bool, repeat: int) -> None:
    real = not no_real and "EM_BLOCKS_DATA" in os.environ
    found: dict[str, list[Found]] = {}
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        if not no_demo:
            demo.make_volume(made)
        for number in range(repeat):
            folder = Path(name) / f"round{number}"
            cases = []
            if not no_demo:
                shutil.copytree(made, folder / "demo")
                cases.append(demo_cases(folder / "demo"))
            if real:
                cases.append(real_cases(folder / "real", quick))
            for case in (case for some in cases for case in some):
                figures = measured(case)
                shown(case, figures)
                found.setdefault(case.config.stem, []).append(figures)
            shutil.rmtree(folder)
    ratios = {name: statistics.median(f.ratio for f in some) for name, some in found.items()}
    print("medians of predicted / real, and at equal speed: " + ", ".join(
        f"{name} {statistics.median(f.ratio for f in some):.2f} "
        f"({statistics.median(f.at_equal_speed for f in some):.2f})" for name, some in found.items()
    ))
    worst = max(abs(ratio - 1) for ratio in ratios.values())
    print(json.dumps({"name": "wall time, predicted against real: largest error of "
                      f"{len(ratios)} commands", "value": round(worst, 3), "unit": "of the real time",
                      "against": LIMIT, "ratio": round(worst / LIMIT, 2)}))


if __name__ == "__main__":
    main()
