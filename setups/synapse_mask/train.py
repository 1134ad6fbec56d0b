"""Train this setup; takes the options of pipelines/train.py."""

import os
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.argv.insert(1, os.path.relpath(FOLDER / "config.json"))
runpy.run_path(str(FOLDER.parents[1] / "pipelines" / "train.py"), run_name="__main__")
