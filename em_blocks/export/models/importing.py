"""A model that others made, checked, as a setup."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from em_blocks.config import VoxelSize
from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.export.models.bioimageio_in import RDF_NAMES, import_bioimageio
from em_blocks.export.models.package import (
    CHECKSUMS,
    check_checksums,
    new_package,
    opened_package,
    write_checksums,
)
from em_blocks.export.models.sample import (
    FOLDER,
    TOLERANCE,
    Difference,
    compare,
    read_sample,
    sample_outputs,
)
from em_blocks.models.setup import CONFIG, NETWORK, Setup

FOREIGN_TOLERANCE = 1e-3
"""For test outputs of other frameworks, as bioimage.io has it."""


class Imported(NamedTuple):
    """What was imported, how well it gives its test output, and what the user should know."""

    setup: Path
    differences: list[Difference]
    remarks: list[str]


def import_model(
    source: Path, output: Path, *, trust_code: bool = False, voxel_size: VoxelSize | None = None
) -> Imported:
    """Make a setup of a folder or zip file that `export_folder` wrote, or of a package of bioimage.io.

    Nothing in it is executed unless `trust_code` is set, and weights are never unpickled. The setup
    is kept only if it gives the test output of the model.

    Parameters
    ----------
    source : Path
    output : Path
        Folder of the setup.
    trust_code : bool
        Run network.py of the model, if it has one.
    voxel_size : (3,) float, optional
        nm (z, y, x), where a package of bioimage.io does not say it.

    Raises
    ------
    ConfigError, CheckpointError
        If it is no model, damaged, or needs what em_blocks does not run.
    RefusedError
        If it holds code that is not trusted, or `output` exists.
    """
    with opened_package(source) as folder, new_package(output) as made:
        foreign = any((folder / name).is_file() for name in RDF_NAMES)
        if foreign:
            remarks = import_bioimageio(folder, made, voxel_size)
        elif (folder / CONFIG).is_file() and (folder / CHECKSUMS).is_file():
            remarks = _copy(folder, made, trust_code=trust_code)
        else:
            raise ConfigError(
                f"{source} is no model that travels: it has neither {CONFIG} with {CHECKSUMS}, as "
                f"`em-blocks model export` writes them, nor {RDF_NAMES[0]} of bioimage.io. A plain "
                "setup is used as it is; a file of ONNX by a config.json with `network.kind` \"onnx\" "
                "(docs/models.md)."
            )
        differences = check_model(made, FOREIGN_TOLERANCE if foreign else TOLERANCE)
        if not all(difference.ok for difference in differences):
            raise CheckpointError(
                f"The model {source} does not give its own test output here: {said(differences)}. "
                "Nothing was written: its predictions would not be those that its scores are of. "
                "Its test files may be of other weights; ask its authors."
            )
        if foreign:
            _keep_own_outputs(made)
            write_checksums(made)
    return Imported(output, differences, remarks)


def _keep_own_outputs(made: Path) -> None:
    """Replace the test outputs by those of onnxruntime here, which it gives everywhere."""
    setup = Setup.from_folder(made)
    raw, _ = read_sample(made, setup.config)
    network = setup.load(setup.checkpoint_path())
    for name, values in sample_outputs(network, setup.config, raw).items():
        np.save(made / FOLDER / f"{name}.npy", values)


def _copy(folder: Path, made: Path, *, trust_code: bool) -> list[str]:
    check_checksums(folder)
    code = folder / NETWORK
    if code.exists() and not trust_code:
        raise RefusedError(
            f"The model brings {NETWORK}: code that every prediction with it would run, with your "
            "rights. Nothing was written or run. Read the file, then import the model with "
            "--trust-code; or ask for it as ONNX, which holds no code."
        )
    shutil.copytree(folder, made, dirs_exist_ok=True)
    return [f"{NETWORK} is code of the model and runs in every prediction."] if code.exists() else []


def check_model(folder: Path, tolerance: float = TOLERANCE) -> list[Difference]:
    """Compare what a model gives here, in fp32, with the test output that it brings.

    Raises
    ------
    ConfigError, CheckpointError
        If it has no test input, or cannot be loaded.
    """
    setup = Setup.from_folder(folder)
    own = setup.config.network.weights
    if own is not None and not own.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"The config of the model names the network {own}, which is not a file of the model. A "
            "model that travels has its network in its folder; correct `network.file`."
        )
    raw, expected = read_sample(folder, setup.config)
    network = setup.load(setup.checkpoint_path())
    return compare(expected, sample_outputs(network, setup.config, raw), tolerance)


def said(differences: list[Difference]) -> str:
    """List the largest difference of every head, and what is accepted."""
    return "; ".join(
        f"{d.head} differs by {d.largest:.3g} at most ({d.accepted:.3g} is accepted)"
        for d in differences
    )
