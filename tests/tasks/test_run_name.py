"""Runs that nobody named are named by what they write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from em_blocks.tasks.base import RunName
from em_blocks.tasks.run_name import run_name


@pytest.mark.parametrize(("output", "name"), [
    ("data/brain.zarr/raw", "brain_raw"), ("data/affinities.zarr", "affinities"),
    ("s3://bucket/data/brain.n5/volumes/raw", "brain_volumes_raw"), ("tables/overlaps", "overlaps"),
    ("data/a b+c.zarr", "a_b_c"), (None, "predict"), ("", "predict"), ("/", "predict"),
    ("data/_x.zarr", "x"),
])
def test_a_run_is_named_by_its_container_and_array(output, name):
    assert run_name(output, "predict") == name


@given(output=st.text(max_size=300))
def test_every_name_is_one_that_a_config_may_have(output):
    TypeAdapter(RunName).validate_python(run_name(output, "predict"))
