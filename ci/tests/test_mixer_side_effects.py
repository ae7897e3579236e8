"""Side effects of a Mixer: the network, the batch and BatchNorm stay as they were, also after an
error; lazy layers and recomputed segments work."""
import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from mixers import GUIDED, Around, Segments, every, guided, own_maps
from networks import Attentive
from steps import train_step
from torch import nn
from torch.testing import assert_close

from sagelib import SAGE, ManifoldMixup, Mixer, catalog, datasets, methods
from sagelib.evaluate import robustness
from sagelib.losses import one_hot
from sagelib.methods import sage


def state(net):
    """Buffers, parameters (requires_grad and .grad) and modes of a network, by name."""
    buffers = {k: v.clone() for k, v in net.state_dict().items()}
    parameters = {k: (p.requires_grad, None if p.grad is None else p.grad.clone())
                  for k, p in net.named_parameters()}
    modes = {k: (m.training, getattr(m, "track_running_stats", None))
             for k, m in net.named_modules()}
    return buffers, parameters, modes


@every
def test_a_call_leaves_the_network_as_it_was(kind, tiny, images):
    net = tiny().train()
    net[0].weight.requires_grad_(False)
    net[1].eval()
    F.cross_entropy(net(images[0]), images[1]).backward()
    net[1].train()
    before = state(net)
    mix = kind(num_classes=10, seed=0).bind(net)
    for _ in range(3):
        with warnings.catch_warnings(action="ignore"):  # Manifold Mixup waits for a forward
            x, y = mix(*images)
        assert x.shape == images[0].shape and not x.requires_grad and not y.requires_grad
        assert_close(y.sum(1), torch.ones(6))
    after = state(net)
    assert before[2] == after[2] and all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    for k, (wanted, grad) in before[1].items():
        assert wanted == after[1][k][0] and (grad is None or torch.equal(grad, after[1][k][1]))


def test_a_frozen_layer_stays_without_a_gradient(tiny, images):
    net = tiny().train()
    net[0].weight.requires_grad_(False)
    SAGE(num_classes=10).bind(net).loss(*images).backward()
    assert net[0].weight.grad is None and net[0].bias.grad is not None


@pytest.mark.parametrize("bn, batches", [("train", 2), ("batch", 1), ("eval", 1)])
def test_running_statistics_see_no_batch_of_a_call_and_one_or_two_of_a_loss(bn, batches, tiny,
                                                                            images):
    net = tiny().train()
    mix = SAGE(num_classes=10, bn=bn).bind(net)
    mix(*images)
    assert net[1].num_batches_tracked == 0
    mix.loss(*images)
    assert net[1].num_batches_tracked == batches


def test_the_mode_of_batchnorm_can_be_changed_back_and_forth(tiny, images):
    net = tiny().train()
    mix = SAGE(10).bind(net)
    for mode, batches in (("batch", 1), ("train", 2), ("eval", 1)):
        mix.method.bn, before = mode, int(net[1].num_batches_tracked)
        mix.loss(*images)
        assert net[1].num_batches_tracked == before + batches
    with pytest.raises(ValueError, match="bn is 'sometimes'"):
        mix.method.bn = "sometimes"


def test_bn_batch_means_the_maps_of_a_network_without_running_statistics(tiny, images):
    net, frozen = tiny().train(), tiny().train()
    frozen[1].track_running_stats = False
    maps = [Mixer(sage.Sage(bn="batch"), 10, seed=0).bind(n) for n in (net, frozen)]
    assert torch.equal(maps[0](*images)[0], maps[1](*images)[0]) and net[1].track_running_stats


# the batch

@pytest.mark.parametrize("form", [lambda m, x, t: m(x, t)[0], lambda m, x, t: m.loss(x, t)],
                         ids=["call", "loss"])
@guided
@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.ReLU()], ids=["in place", "copied"])
def test_a_first_layer_may_write_on_its_input(kind, first, form, tiny, images):
    x, t = images
    before = x.clone()
    found = [form(kind(10, seed=0).bind(Around(tiny(norm=False), layer)), x, t)
             for layer in (first, nn.ReLU())]
    assert_close(*found)
    assert torch.equal(x, before)


def test_a_network_that_normalises_in_place_leaves_the_batch_alone(tiny, images):
    class Normalise(nn.Module):
        @torch.no_grad()
        def forward(self, z):
            return z.sub_(0.5).div_(0.25)

    x, t = images
    before = x.clone()
    SAGE(10, seed=0).bind(Around(tiny(norm=False), Normalise()))(x, t)
    assert torch.equal(x, before)


def test_channels_last_stays(tiny, images):
    x = images[0].contiguous(memory_format=torch.channels_last)
    assert SAGE(num_classes=10).bind(tiny())(x, images[1])[0].is_contiguous(
        memory_format=torch.channels_last)


# graphs

def test_a_call_under_no_grad_still_finds_saliency(tiny, images):
    with torch.no_grad():
        found = SAGE(num_classes=10, seed=0).bind(net := tiny())(*images)
    assert torch.equal(found[0], SAGE(num_classes=10, seed=0).bind(net)(*images)[0])


def test_a_function_that_gives_maps_adds_no_graph(tiny, images):
    other, net = tiny(), tiny()

    def maps(z):
        with torch.enable_grad():
            return own_maps(other[0](z))
    mix = SAGE(10, saliency=maps).bind(net)
    x, y = mix(*images)
    F.cross_entropy(net(x), y).backward()
    assert not (x.requires_grad or y.requires_grad or mix.last.saliency.requires_grad)
    assert all(p.grad is None for p in other.parameters())


# errors

@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_network_is_refused_where_its_batchnorm_would_move(tiny):
    with pytest.raises(ValueError, match=r"scripted network .* before torch\.jit\.script"):
        SAGE(10).bind(torch.jit.script(nn.Sequential(*tiny())))
    SAGE(10).bind(torch.jit.script(nn.Sequential(*tiny(norm=False))))


def test_a_first_step_that_fails_leaves_running_statistics_alone(tiny, images):
    net = tiny()
    mix = SAGE(7).bind(net)
    with pytest.raises(ValueError, match="num_classes=7"):
        mix.loss(images[0], images[1] % 7)
    assert net[1].num_batches_tracked == 0 and torch.equal(net[1].running_mean, torch.zeros(6))


USES = {
    **{f"{kind.__name__}, {form}":
       lambda net, x, t, kind=kind, form=form: getattr(kind(10).bind(net), form)(x, t)
       for kind in GUIDED for form in ("__call__", "loss")},
    "GuidedMixup": lambda net, x, t: catalog.load(methods, "guidedmixup", source="gradient").mix(
        x, one_hot(t, 10), net),
    "KeepAugment": lambda net, x, t: train_step(
        catalog.load(methods, "keepaugment"), net, x, one_hot(t, 10)),
    "attacks": lambda net, x, t: robustness.evaluate(
        net, catalog.load(datasets, "shapes", train=10, test=10)[1]),
}


@pytest.mark.parametrize("use", USES)
def test_reentrant_segments_are_one_clear_error_that_changes_nothing(use, tiny, images):
    net = Segments(tiny(), True)
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    with pytest.raises(RuntimeError,
                       match=r"recomputes a segment .*: use_reentrant=False does$") as caught:
        USES[use](net, *images)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert net.net[1].track_running_stats and all(p.grad is None for p in net.parameters())


# lazy layers, which have no shape before their first forward

def lazy():
    torch.manual_seed(0)
    return Attentive(nn.LazyConv2d(6, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(),
                     nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(10))


@every
@pytest.mark.parametrize("compiled", [False, True])
def test_a_call_may_be_the_first_forward_of_lazy_layers(kind, compiled, images):
    torch.compiler.reset()
    net = lazy()
    bound = torch.compile(net, backend="eager") if compiled else net
    where = {"stages": ["0", "2"]} if kind is ManifoldMixup else {}
    x, y = kind(10, seed=0).bind(bound, **where)(*images)
    if kind in GUIDED:
        assert torch.equal(net[1].running_mean, torch.zeros(6)) and net[1].num_batches_tracked == 0
        again = kind(10, seed=0).bind(copy.deepcopy(net))(*images)
        assert_close(again, (x, y))
        assert not net[1]._forward_pre_hooks
    F.cross_entropy(bound(x), y).backward()
    assert net[1].num_batches_tracked == 1
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["sage", "comixup"])
def test_a_method_of_the_catalogue_may_run_lazy_layers_first(name, images):
    net, method = lazy(), catalog.load(methods, name, bn="batch").seed(0)
    method.mix(images[0], one_hot(images[1], 10), net)
    assert net[1].num_batches_tracked == 0 and net[1].track_running_stats
    assert type(net[1]) is nn.BatchNorm2d and net(images[0]).shape == (6, 10)
