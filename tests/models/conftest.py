"""A tiny setup that trains in seconds."""

import pytest

from tiny_setup import write_setup


@pytest.fixture
def setup_folder(tmp_path):
    return write_setup(tmp_path / "tiny")
