"""Chains of commands whose results two versions must have in common.

Every command is as in the README: the configs and setups of a checkout are copied into the folder of
the results, so that their relative paths lead there. Precision and tile are stated, so that no timing
chooses them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

DEMO_SETUPS = ("affinities_anisotropic", "synapse_multitask")
RUN_DIR = "--set=run_dir={folder}/run"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    words : tuple of str
        Arguments of ``em-blocks``; ``{folder}`` stands for that of the results.
    runs : str or None
        Of a blockwise command, which can be killed and resumed: pattern of the names of its runs.
    """

    words: tuple[str, ...]
    runs: str | None = None

    def arguments(self, folder: Path) -> list[str]:
        return [word.replace("{folder}", str(folder)) for word in self.words]

    @property
    def name(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class Chain:
    """Commands that follow each other.

    Attributes
    ----------
    commands : tuple of Command
    database : tuple of str
        A config, with its options, that names the database of all of them.
    home : str
        Folder of that database.
    """

    commands: tuple[Command, ...]
    database: tuple[str, ...]
    home: str = "run"


def blockwise(verb: str, config: str, runs: str, *sets: str) -> Command:
    """A command that runs a shipped config, with its database in the folder ``run``."""
    options = (f"--set={value}" for value in sets)
    return Command((*verb.split(), f"configs/{config}.json", RUN_DIR, *options, "--json"), runs)


def verify(config: str, *sets: str) -> Command:
    options = (f"--set={value}" for value in sets)
    return Command(("verify", f"configs/{config}.json", RUN_DIR, *options, "--json"))


SMALL_ROI = json.dumps({"offset": [320, 640, 640], "shape": [640, 640, 640]})
FP32_AFFINITIES = "affinities={folder}/runs/fib25_fp32/predictions.zarr/affinities"
SEGMENTS = "{folder}/runs/fib25/segmentation.zarr/segments/0.7"
NEURONS = "{folder}/data/fib25.zarr/neurons"
CLEANED = "{folder}/runs/fib25/cleaned.zarr"
FIB25_DATABASE = ("configs/fib25_affinities_fp32.json", RUN_DIR)


def fib25_to_scores(predict: tuple[str, ...], segment: tuple[str, ...]) -> tuple[Command, ...]:
    """Images to segments, cleaned segments, a pyramid and scores, with further settings of two verbs."""
    affinities = (FP32_AFFINITIES, *segment)
    return (
        blockwise("ingest", "fib25_ingest", "fib25_raw"),
        blockwise("ingest", "fib25_labels_ingest", "fib25_neurons"),
        blockwise("predict", "fib25_affinities_fp32", "fib25_affinities_fp32", *predict),
        blockwise("segment", "fib25_segment", r"fib25_segment\.(?!.*_0\.8).*", *affinities),
        Command(("segment", "configs/fib25_segment.json", RUN_DIR, *(f"--set={a}" for a in affinities),
                 "--threshold", "0.8", "--json"), r"fib25_segment\..*_0\.8"),
        Command(("evaluate", "segmentation", "--segmentation", SEGMENTS, "--truth", NEURONS,
                 "--output", "{folder}/run/evaluation", "--json")),
        blockwise("evaluate segmentation", "fib25_evaluate", "fib25_supplied",
                  f"segmentations={json.dumps({'ours': SEGMENTS})}", f"truth={NEURONS}",
                  "block_shape=[32,64,64]"),
        blockwise("clean", "mouse_clean", r"mouse_clean\..*", f"labels={SEGMENTS}",
                  f"output={CLEANED}/s0", "block_shape=[64,64,64]", "chunk_shape=[32,64,64]"),
        blockwise("downsample", "mouse_downsample", r"mouse_pyramid\..*", f"input={CLEANED}/s0",
                  f"output={CLEANED}", "chunk_shape=[32,32,32]", "block_shape=[32,64,64]"),
        verify("fib25_affinities_fp32", *predict),
        verify("fib25_segment", *affinities),
    )


_WHOLE = fib25_to_scores((), ())
FIB25 = Chain(
    (
        *_WHOLE[:3],
        blockwise("predict", "fib25_affinities", "fib25_mirrors", "run=fib25_mirrors",
                  "precision=fp32", f"roi={SMALL_ROI}", "block_shape=[32,64,64]",
                  "tile_shape=[32,64,64]"),
        *_WHOLE[3:],
        Command(("audit", "configs/fib25_segment.json", RUN_DIR, f"--set={FP32_AFFINITIES}",
                 "--samples", "1", "--json")),
    ),
    FIB25_DATABASE,
)

_PART = json.dumps({"offset": [320, 640, 320], "shape": [640, 1280, 1280]})
_CUT = ("block_shape=[32,64,64]", "tile_shape=[32,64,64]")
FIB25_PART = Chain(
    fib25_to_scores((f"roi={_PART}", *_CUT), (*_CUT, "chunk_shape=[32,64,64]", "context=[8,8,8]")),
    FIB25_DATABASE,
)

INDICATOR = "prediction={folder}/runs/synapses/predictions.zarr/indicator"
SYNAPSES = Chain(
    (
        Command(("generate", "{folder}/data/synapses.zarr", "--shape", "32,256,256", "--seed", "7")),
        blockwise("predict", "synapses_predict", "synapse_maps", "precision=fp32",
                  "tile_shape=[16,128,128]", "block_shape=[16,128,128]"),
        blockwise("extract-synapses", "synapses_extract", "synapses", "block_shape=[16,64,64]"),
        blockwise("map-synapses", "synapses_map", r"synapses_map\..*", "block_shape=[16,64,64]"),
        blockwise("cluster-clefts", "synapses_clefts", r"synapses_clefts\..*", INDICATOR,
                  "block_shape=[16,64,64]", "chunk_shape=[16,64,64]"),
        Command(("export", "synapses", "configs/synapses_extract.json", RUN_DIR,
                 "--set=block_shape=[16,64,64]", "--output", "{folder}/runs/synapses/found.parquet")),
        Command(("export", "synapses", "configs/synapses_extract.json", RUN_DIR,
                 "--set=block_shape=[16,64,64]", "--filter", "self", "--filter", "duplicates=100",
                 "--output", "{folder}/runs/synapses/found.json")),
        Command(("evaluate", "synapses", "configs/synapses_evaluate.json", "--json")),
        Command(("export", "graph", "configs/synapses_map.json", RUN_DIR,
                 "--set=block_shape=[16,64,64]", "--filter", "self",
                 "--output", "{folder}/runs/synapses/connectome.graphml", "--json")),
        Command(("evaluate", "synapses", "configs/evaluate_protobridge.json", "--json")),
        Command(("evaluate", "clefts", "--prediction", "{folder}/runs/synapses/clefts.zarr/ids",
                 "--truth", "{folder}/data/synapses.zarr/mitochondria", "--json")),
        verify("synapses_predict", "precision=fp32", "tile_shape=[16,128,128]",
               "block_shape=[16,128,128]"),
        verify("synapses_extract", "block_shape=[16,64,64]"),
        verify("synapses_clefts", INDICATOR, "block_shape=[16,64,64]", "chunk_shape=[16,64,64]"),
    ),
    ("configs/synapses_extract.json", RUN_DIR, "--set=block_shape=[16,64,64]"),
)

DEMO = Chain((Command(("demo", "{folder}/demo"), ".*"),), ("demo/predict.json",), "demo")

CHAINS = {"synapses": SYNAPSES, "fib25_part": FIB25_PART, "demo": DEMO, "fib25": FIB25}


def prepare(folder: Path, checkout: Path) -> None:
    """An empty folder of results with the configs and setups of a checkout."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("configs", "setups"):
        shutil.copytree(checkout / name, folder / name,
                        ignore=shutil.ignore_patterns("training", "__pycache__"))
