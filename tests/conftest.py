"""Paths and fixtures for all tests."""

import faulthandler
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
faulthandler.enable()

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("em_blocks", deadline=None, derandomize=True)
settings.load_profile("em_blocks")
