"""A Mixer's saliency: Equation 1 of the network's gradient, or a function of the images."""
import pytest
import torch
import torch.nn.functional as F
from mixers import ALWAYS, Around, kinds, own_maps
from torch.testing import assert_close

from sagelib import SAGE, CoMixup, Mixer, PuzzleMix, RMix, SaliencyMix, catalog, methods
from sagelib.losses import one_hot
from sagelib.saliency import saliency


def test_saliency_is_equation_1(tiny, images):
    net = tiny(norm=False)
    mix = SAGE(num_classes=10).bind(net)
    mix(*images)
    z = images[0].clone().requires_grad_()
    grad = torch.autograd.grad(F.cross_entropy(net(z), images[1]), z)[0]
    assert_close(mix.last.saliency, saliency(grad))


@pytest.mark.parametrize("name", ["sage", "puzzlemix", "comixup", "saliencymix", "guidedmixup",
                                  "keepaugment", "rmix"])
def test_a_function_that_gives_maps_needs_no_network(name, images):
    x, t = images
    options = {"prob": 1.0} if name == "saliencymix" else {}
    method = catalog.load(methods, name, criterion="cross_entropy", **options)
    mix = Mixer(method, 10, saliency=own_maps, seed=4)
    found = mix(x, t)
    expected = method.seed(4).mix_with_saliency(x, one_hot(t, 10), own_maps(x)[:, None])
    assert torch.equal(found[0], expected.x) and torch.equal(found[1], expected.y)
    assert not torch.equal(found[0], x)


@kinds(SAGE, PuzzleMix, CoMixup, RMix, SaliencyMix)
def test_the_functions_take_saliency_too(kind, images):
    given = dict(num_classes=10, saliency=own_maps, seed=4, **ALWAYS.get(kind, {}))
    again = Mixer(kind(**given).method, 10, saliency=own_maps, seed=4)
    assert_close(kind(**given)(*images), again(*images), rtol=0, atol=0)


def test_the_box_of_saliencymix_lies_around_the_peak_of_the_partners_map(images):
    mix = SaliencyMix(num_classes=10, saliency=own_maps, seed=4, prob=1.0)
    mix(*images)
    peaks = own_maps(images[0]).flatten(1).argmax(1)
    for i, j in enumerate(mix.last.pair.tolist()):
        assert mix.last.mask[i, 0].flatten()[peaks[j]] == 0 or mix.last.share[i] == 1


@pytest.mark.parametrize("maps, message", [
    (lambda z: z[:, 0, :7], r"maps \(6, 1, 7, 18\)"), (lambda z: None, "a NoneType"),
    (lambda z: -z[:, 0].abs(), ".*negative"), (lambda z: z[:, 0] * torch.nan, ".*not finite")])
def test_wrong_maps_are_one_clear_error(maps, message, images):
    with pytest.raises(ValueError, match=f"saliency= gave {message}"):
        SAGE(num_classes=10, saliency=maps)(*images)


@kinds(PuzzleMix, SaliencyMix)
def test_mean_and_std_of_other_channels_are_one_clear_error(kind, tiny):
    mix = kind(10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), **ALWAYS.get(kind, {}))
    if kind is PuzzleMix:
        mix.bind(Around(tiny(norm=False), torch.nn.Conv2d(4, 3, 1)))
    with pytest.raises(ValueError, match="mean has 3 numbers, the images 4 channels"):
        mix(torch.randn(6, 4, 16, 16), torch.arange(6))
