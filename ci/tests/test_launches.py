"""What a step launches on a GPU after compilation, counted from inductor's code for an H100."""
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for NVIDIA GPUs; this torch has none")
sys.path.insert(0, str(Path(__file__).parents[1]))
launches = pytest.importorskip(
    "launches", exc_type=ImportError, reason="ci/launches.py does not know this torch's inductor")


@pytest.fixture(scope="module")
def parts():
    return launches.parts(batch=20, width=8)


def test_the_arithmetic_around_the_network_is_a_few_kernels(parts):
    """The search is one of them: the only call that inductor did not write."""
    most = {"crop, flip, normalise": (1, []), "Equation 1": (1, []),
            "Algorithm 1, lines 2 to 7": (9, ["total_saliency"]), "loss and its gradient": (4, [])}
    for name, (generated, library) in most.items():
        kernels, operations = parts[name]
        assert 1 <= len(kernels.generated) <= generated and kernels.library == library
        assert operations > kernels.launches
    assert parts["Algorithm 1, lines 2 to 7"][1] > 60


def test_libraries_are_called_for_convolutions_and_products_alone(parts):
    """Twenty convolutions; the gradients of each with respect to images and to weights."""
    forwards, backwards = (parts[f"network, {way}"][0].library for way in ("forwards", "backwards"))
    assert sorted(set(forwards)) == ["addmm", "convolution"] and len(forwards) == 21
    assert backwards.count("convolution_backward") == 40 and len(backwards) == 42


def test_bytes_are_those_that_a_kernel_reads_and_writes():
    z = torch.randn(1000, 300)
    (kernels,) = launches.kernels_of(lambda z: (z * 2 + 1).relu(), z)
    assert kernels.generated == [2 * 4 * z.numel()] and kernels.library == []
    assert kernels.seconds == max(launches.LAUNCH, 8 * z.numel() / launches.BANDWIDTH)
