"""Packages that only some jobs need: what is missing is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from em_blocks.errors import ConfigError

EXTRAS = {
    "predict": ("torch", "safetensors"),
    "evaluate": ("matplotlib", "networkx", "waterz"),
    "train": ("dask", "gunpowder", "skimage", "tensorboardX", "zarr"),
    "embeddings": ("sklearn",),
    "classes": ("graspologic_native", "matplotlib", "sklearn"),
    "onnx": ("onnx", "onnxruntime", "onnxscript", "yaml"),
    "dashboard": ("starlette", "uvicorn"),
    "formats": ("hdf5plugin", "mrcfile", "nibabel", "wkw"),
}
"""Modules that an extra of setup.py installs."""


@contextmanager
def needed_extras() -> Iterator[None]:
    """Turn the import of a package that is not installed into what to install.

    Raises
    ------
    ConfigError
        If a package of an extra is missing; other missing modules stay as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, modules in EXTRAS.items():
            if missing in modules:
                raise ConfigError(
                    f"{missing} is not installed, which this needs: pip install 'em_blocks[{extra}]'."
                ) from error
        raise
