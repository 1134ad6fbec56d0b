"""Affinities to segments: CPU seconds, memory and VOI of em_blocks and of volara 1.0.5.

One synthetic volume of 64 x 256 x 256 voxels (40 x 4 x 4 nm): 250 Voronoi cells with membranes of no
thickness, and nine noisy uint8 affinity channels, of which the direct ones alone do not hold the
cells apart. Both systems get the same affinities, blocks of 32 x 128 x 128 voxels and two workers of
one thread, and run in turns; CPU seconds are those of all their processes, the database included.
The threshold and the biases of em_blocks are those of volara's example (0.4 and 0.7), and one half.

volara needs an environment of its own:

    python3 -m venv .venv-volara && .venv-volara/bin/pip install torch==2.13.0 volara==1.0.5
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
VOLARA = ROOT / ".venv-volara" / "bin" / "python"
PR_SET_CHILD_SUBREAPER = 36
SHAPE, VOXEL_SIZE, N_CELLS = (64, 256, 256), (40.0, 4.0, 4.0), 250
SHIFTS = [
    [1, 0, 0], [0, 1, 0], [0, 0, 1], [4, 0, 0], [0, 8, 0], [0, 0, 8], [8, 0, 0], [0, 16, 0], [0, 0, 16],
]
# Seen on two idle cores, for comparison where volara is not installed.
VOLARA_CPU_S = 50.0


def make_data(folder: Path) -> None:
    """Affinities and truth of a volume of Voronoi cells; always the same."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    from em_blocks.geometry import Frame
    from em_blocks.volumes import Volume

    rng = np.random.default_rng(0)
    seeds = np.zeros(SHAPE, bool)
    seeds[tuple(rng.integers(0, s, N_CELLS) for s in SHAPE)] = True
    ids = np.zeros(SHAPE, np.uint64)
    ids[seeds] = np.arange(1, seeds.sum() + 1)
    nearest = distance_transform_edt(
        ~seeds, sampling=(10, 1, 1), return_distances=False, return_indices=True
    )
    truth = ids[tuple(nearest)]
    affinities = np.zeros((len(SHIFTS), *SHAPE), np.uint8)
    for channel, shift in enumerate(SHIFTS):
        first = tuple(slice(0, n - k) for n, k in zip(SHAPE, shift, strict=True))
        second = tuple(slice(k, n) for n, k in zip(SHAPE, shift, strict=True))
        same = np.zeros(SHAPE, np.float32)
        same[first] = truth[first] == truth[second]
        noise = gaussian_filter(rng.standard_normal(SHAPE, np.float32), (0, 1.5, 1.5)) * 0.6
        values = (gaussian_filter(same, (0, 1, 1)) + noise) * 255
        affinities[channel] = np.clip(values, 0, 255)
    container, frame = folder / "test.zarr", Frame(VOXEL_SIZE)
    for name, values, channels in (("truth", truth, None), ("affinities", affinities, len(SHIFTS))):
        volume = Volume.create(
            str(container / name), shape=SHAPE, dtype=str(values.dtype), frame=frame,
            chunk_shape=(32, 128, 128), channels=channels,
        )
        volume.write(volume.box, values)
    (folder / "neighborhood.json").write_text(json.dumps(SHIFTS))
    (folder / "segment.json").write_text(json.dumps({
        "kind": "segment", "run": "bench", "affinities": "test.zarr/affinities",
        "neighborhood": SHIFTS, "output": "ours/segmentation.zarr", "block_shape": [32, 128, 128],
        "context": [0, 0, 0], "chunk_shape": [32, 128, 128],
        "fragments": {
            "method": "mutex_watershed", "direct_bias": -0.4, "long_range_bias": -0.7
        },
        "thresholds": [0.5], "num_workers": 2,
    }))


def measure(command: list) -> dict:
    """CPU seconds of a command and all that it started, wall seconds, memory of its largest process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(c) for c in command], env=environment, capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    while True:  # the database outlives its command by a moment
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": wall, "largest_mb": after.ru_maxrss / 1024}


def run_ours(folder: Path) -> dict:
    shutil.rmtree(folder / "ours", ignore_errors=True)
    command = [sys.executable, "-m", "em_blocks.pipelines.segment_blockwise", folder / "segment.json"]
    return _in_child(command) | {"voi": voi(folder, "ours/segmentation.zarr/segments/0.5")}


def run_volara(folder: Path) -> dict:
    # A folder of its own for every round: markers and tables of an earlier one make it fail.
    own = Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(folder / "test.zarr", own / "test.zarr")
    shutil.copy(folder / "neighborhood.json", own)
    command = [VOLARA, ROOT / "benchmarks/parts/volara_pipeline.py", own]
    return _in_child(command) | {"voi": voi(own, "test.zarr/volara_segments")}


def _in_child(command: list) -> dict:
    """`measure` in a process of its own: the largest child is counted over all that went before."""
    code = [sys.executable, __file__, "--measure", *map(str, command)]
    done = subprocess.run(code, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def voi(folder: Path, segmentation: str) -> dict:
    command = [
        sys.executable, "-m", "em_blocks.pipelines.evaluate", "segmentation", "--segmentation",
        folder / segmentation, "--truth", folder / "test.zarr/truth", "--json",
    ]
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=True)
    scores = json.loads(done.stdout)
    return {key: scores[key] for key in ("voi_split", "voi_merge")}


def report(name: str, run: dict) -> None:
    print(
        f"{name}: {run['cpu_s']:.1f} CPU-s, {run['wall_s']:.1f} s, largest process "
        f"{run['largest_mb']:.0f} MB, VOI {run['voi']['voi_split']:.4f} + "
        f"{run['voi']['voi_merge']:.4f}", flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--data", name], check=True)
        report("em_blocks, first run (compiles its kernels where none are cached)", run_ours(folder))
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(run_ours(folder))
            report("em_blocks", ours[-1])
            if VOLARA.exists():
                theirs.append(run_volara(folder))
                report("volara 1.0.5", theirs[-1])
    cpu = statistics.median(run["cpu_s"] for run in ours)
    against = statistics.median(run["cpu_s"] for run in theirs) if theirs else VOLARA_CPU_S
    if not theirs:
        print(f"volara is not installed in {VOLARA.parents[1]}: compared with {against:.0f} CPU-s, as "
              "seen on two idle cores of another machine. The ratio is only a hint.")
    print(json.dumps({
        "name": "segment_cpu_s", "value": round(cpu, 2), "unit": "CPU-s",
        "against": f"volara 1.0.5, {against:.1f} CPU-s" + ("" if theirs else " (not run here)"),
        "ratio": round(cpu / against, 3),
    }))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--data"]:
        make_data(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--measure"]:
        # Orphans become children of this process, so that their CPU time is counted too.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        print(json.dumps(measure(sys.argv[2:])))
    else:
        main()
