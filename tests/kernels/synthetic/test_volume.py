"""The generator: same bytes, and labels that fit its image."""

import subprocess
import sys

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.kernels.transforms.noise import smooth_noise

SHAPE = (12, 160, 160)
SIZES = [(40, 4, 4), (10, 10, 10)]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def made(request):
    shape = SHAPE if request.param[0] == 40 else (40, 80, 80)
    return phantom(shape, voxel_size=request.param, seed=7)


def rims(labels):
    """Voxels beside another label in the same section."""
    rim = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        differs = np.diff(labels, axis=axis) != 0
        pad = [(0, 0)] * 3
        pad[axis] = (1, 0)
        rim |= np.pad(differs, pad)
        pad[axis] = (0, 1)
        rim |= np.pad(differs, pad)
    return rim


def test_arrays_have_the_shape_and_types_of_a_volume(made):
    assert made.raw.dtype == np.uint8
    assert made.neurons.dtype == made.mitochondria.dtype == np.uint64
    assert made.raw.shape == made.neurons.shape == made.mitochondria.shape


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from em_blocks.kernels.synthetic.volume import phantom; "
        "p = phantom((4, 64, 64), seed=5); "
        "print(hashlib.sha256(b''.join(a.tobytes() for a in p[:3])).hexdigest())"
    )
    run = [sys.executable, "-c", code]
    one = subprocess.run(
        ["env", "OMP_NUM_THREADS=1", *run], check=True, capture_output=True, text=True
    )
    two = subprocess.run(run, check=True, capture_output=True, text=True)
    assert one.stdout == two.stdout != ""


def test_another_seed_gives_another_volume():
    one, two = (phantom((4, 64, 64), seed=seed) for seed in (1, 2))
    assert (one.neurons != two.neurons).any()
    assert (one.raw != two.raw).mean() > 0.5


def test_every_voxel_belongs_to_one_of_many_neurons(made):
    assert made.neurons.min() > 0
    assert len(np.unique(made.neurons)) >= 8


def test_membranes_are_dark_and_lie_where_neurons_meet(made):
    image = ndimage.gaussian_filter(made.raw.astype(float), (0, 0.7, 0.7))
    far = ~ndimage.binary_dilation(rims(made.neurons), iterations=5) & (made.mitochondria == 0)
    assert image[rims(made.neurons)].mean() < image[far].mean() - 50


def test_mitochondria_are_dark_bodies_inside_one_neuron_away_from_its_membrane(made):
    inside = made.mitochondria > 0
    assert 0.005 < inside.mean() < 0.25
    for number in np.unique(made.mitochondria[inside]):
        assert len(np.unique(made.neurons[made.mitochondria == number])) == 1
    in_section = ndimage.generate_binary_structure(2, 2)[None]
    assert not (inside & ndimage.binary_dilation(rims(made.neurons), in_section)).any()
    assert made.raw[inside].mean() < made.raw[~inside].mean() - 20


def test_neurites_are_a_few_hundred_nm_thick():
    neurons = phantom((40, 80, 80), voxel_size=(10, 10, 10), seed=3).neurons
    voxels = cc3d.statistics(neurons.astype(np.uint32))["voxel_counts"][1:]
    section = np.mean([len(np.unique(part)) for part in neurons])
    diameter_nm = 2 * np.sqrt(80 * 80 * 100 / section / np.pi)
    assert 150 < diameter_nm < 600
    assert voxels.sum() == neurons.size


def test_smooth_noise_has_unit_variance_and_the_wanted_scale():
    noise = smooth_noise(np.random.default_rng(0), (60, 60, 60), (10, 10, 10), 60.0)
    assert abs(noise.std() - 1) < 0.15
    assert abs(noise.mean()) < 0.2
    neighbours = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    distant = np.corrcoef(noise[30:].ravel(), noise[:-30].ravel())[0, 1]
    assert neighbours > 0.95
    assert abs(distant) < 0.3
