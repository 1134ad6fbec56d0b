"""Too little memory is one clear message."""

import pytest
import torch

from em_blocks.errors import RunFailedError
from em_blocks.nets.memory import MemoryGuard, is_out_of_memory, memory_guard, smaller_tile

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Network:
    context, tile_factor = (2, 8, 8), (1, 4, 4)


def guard(batch_size=1, output_shape=(4, 16, 16), tile_shape=(4, 16, 16)):
    return MemoryGuard(
        Network(), batch_size=batch_size, output_shape=output_shape, tile_shape=tile_shape
    )


@pytest.mark.parametrize(
    ("shape", "factor", "wanted"),
    [
        ((2, 16, 16), (1, 4, 4), (2, 8, 16)),
        ((8, 16, 16), (1, 4, 4), (4, 16, 16)),  # z has most steps
        ((1, 12, 4), (1, 4, 4), (1, 4, 4)),
        ((1, 4, 4), (1, 4, 4), None),
    ],
)
def test_a_smaller_tile_is_half_as_long_where_it_has_most_steps(shape, factor, wanted):
    assert smaller_tile(shape, factor) == wanted


def test_the_allocator_of_the_cpu_counts_too():
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(real.value) and is_out_of_memory(CUDA) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("a bug")) and not is_out_of_memory(ValueError())


def test_an_iteration_says_which_batch_or_sample_to_use():
    with pytest.raises(RunFailedError, match=r"2.00 GiB.*batch_size from 6 to 3.*--output") as failed:
        with guard(batch_size=6).step():
            raise CUDA
    assert "6 sample(s) of (8, 32, 32) voxels of raw" in str(failed.value)
    with pytest.raises(RunFailedError, match=r"output_shape from \(2, 16, 16\) to \(2, 8, 16\)"):
        with guard(output_shape=(2, 16, 16)).step():
            raise CUDA
    with pytest.raises(RunFailedError, match=r"lower `features`"):
        with guard(output_shape=(1, 4, 4)).step():
            raise CUDA


def test_a_validation_says_which_tile_to_use():
    with pytest.raises(RunFailedError, match=r"Lower tile_shape from \(4, 16, 16\) to \(2, 16, 16\)"):
        with guard().validation():
            raise MemoryError


def test_other_errors_pass():
    with pytest.raises(ValueError, match="a bug"), memory_guard("it", "advice"):
        raise ValueError("a bug")
