"""TransMix, and SAGE on a transformer: shares against loops over pixels, steps against steps by
hand, and what a loop of one's own needs."""
import copy
import re

import oracles
import pytest
import torch
import torch.nn.functional as F
from steps import gradients, train_step
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from sagelib import SAGE, Mixer, TransMix, attention, catalog, methods, models
from sagelib.bench import timing
from sagelib.losses import one_hot
from sagelib.methods import cutmix, sage, sage_attention, transmix
from sagelib.saliency import saliency, smooth

PAIR = torch.tensor([3, 1, 0, 4, 2])
BOXES = torch.tensor([[2, 3, 13, 12], [0, 0, 8, 12], [4, 4, 12, 20], [5, 1, 7, 3], [0, 0, 16, 24]])


def batch(n=5, classes=10, h=16, w=24):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, h, w, generator=g), one_hot(torch.arange(n) % classes, classes)


def seen(n=5, rows=4, columns=6):
    """Attention maps that differ much from patch to patch."""
    return torch.rand(n, 1, rows, columns, generator=torch.Generator().manual_seed(1)) ** 4


@pytest.fixture
def transformer():
    """A function that builds a small transformer with attention that is not uniform, always with
    the same weights."""
    def build(classes=10):
        torch.manual_seed(0)
        net = catalog.load(models, "vit_tiny", classes=classes, width=4)
        for p in net.last_block.qkv.parameters():
            nn.init.normal_(p, std=0.5)
        return net
    return build


# the share


@pytest.mark.parametrize("pooling", ["nearest", "average"])
@pytest.mark.parametrize("area", [0.0, 0.5, 0.8, 1.0])
def test_the_share_is_a_loop_over_pixels(area, pooling):
    x, y = batch()
    found = transmix.mix(x, y, PAIR, BOXES, seen(), area, pooling)
    want = torch.tensor([oracles.attention_share(box, a[0], 16, 24, area, pooling)
                         for box, a in zip(BOXES.tolist(), seen(), strict=True)])
    assert_close(found.share, want)
    assert_close(found.y, want[:, None] * y + (1 - want[:, None]) * y[PAIR])
    pasted = cutmix.mix(x, y, PAIR, BOXES)
    assert torch.equal(found.x, pasted.x) and torch.equal(found.mask, pasted.mask)
    assert torch.equal(found.saliency[..., 3::4, 2::4], seen())
    if area == 1:
        assert_close(found.y, pasted.y)


def test_the_share_by_hand():
    """8 x 8 pixels, 2 x 2 patches, the upper left one pasted but for its last row and column."""
    x, y, a = torch.zeros(2, 3, 8, 8), torch.eye(2), torch.tensor([[4.0, 2.0], [1.0, 1.0]]) / 10
    a = a.expand(2, 1, 2, 2)
    for area, pooling, partner in ((0, "nearest", 4 / 8), (0, "average", 9 / 16 * 4 / 8),
                                   (1, "nearest", 9 / 64), (0.5, "nearest", (4 / 8 + 9 / 64) / 2)):
        found = transmix.mix(x, y, torch.tensor([1, 0]), (0, 0, 3, 3), a, area, pooling)
        assert_close(found.share, torch.full((2,), 1 - partner))
    missed = transmix.mix(x, y, torch.tensor([1, 0]), (1, 1, 4, 4), a, 0, "nearest")
    assert_close(missed.share, torch.ones(2))  # the first pixel of no patch is in the box


def test_the_scale_of_the_attention_does_not_count_and_nothing_is_uniform():
    x, y = batch()
    one, two = (transmix.mix(x, y, PAIR, BOXES, scale * seen()) for scale in (1, 0.01))
    assert_close(one.y, two.y)
    found = transmix.mix(x, y, PAIR, BOXES, torch.zeros(5, 1, 4, 6), 0, "average")
    assert_close(found.y, cutmix.mix(x, y, PAIR, BOXES).y)


def test_draws_are_cutmixs():
    for options in ({}, {"per_image": True}, {"alpha": 0.3}):
        x, y = batch()
        found = transmix.TransMix(area=1.0, **options).seed(3).mix(x, y, Given(seen()))
        want = cutmix.CutMix(**options).seed(3).mix(x, y)
        assert_close((found.x, found.y), (want.x, want.y))


class Given(nn.Module):
    """A network of one layer that gives these maps."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.layer = maps, nn.Linear(3, 10)

    def forward(self, x, with_attention=False):
        logits = self.layer(x.mean((2, 3)))
        return (logits, self.maps) if with_attention else logits


# a step


def test_a_step_is_one_pass_and_its_label_takes_no_gradient(transformer):
    """Against a step by hand: mix, one pass, the labels by its attention, cross-entropy."""
    x, y = batch()
    net, slow, count = transformer(), transformer(), []
    net.register_forward_hook(lambda *_: count.append(1))
    method = transmix.TransMix(criterion="cross_entropy").seed(1)
    loss = train_step(method, net, x, y)
    assert len(count) == 1
    draws = cutmix.CutMix().seed(1).mix(x, y)
    logits, maps = slow(draws.x, with_attention=True)
    inside = (1 - draws.mask)[..., ::4, ::4]
    partner = ((inside * maps).sum((1, 2, 3)) / maps.sum((1, 2, 3)) + 1 - draws.share) / 2
    labels = (1 - partner)[:, None] * y + partner[:, None] * y[draws.pair]
    want = -(labels * logits.log_softmax(1)).sum(1).mean()
    want.backward()
    assert_close(loss, want.detach())
    assert_close(gradients(net), gradients(slow))
    assert_close(method.last.y, labels)
    assert (partner - (1 - draws.share)).abs().max() > 0.01  # the attention says another share


def test_a_call_makes_one_pass_without_gradient_in_evaluation_mode(transformer):
    x, y = batch()
    net, modes = transformer().train(), []
    net.norm.eval()  # the user's own choice
    net.register_forward_hook(
        lambda net, *_: modes.append((net.training, torch.is_grad_enabled())))
    mixed = transmix.TransMix().seed(1).mix(x, y, net)
    assert modes == [(False, False)] and net.training and not net.norm.training
    assert all(p.grad is None for p in net.parameters()) and not mixed.y.requires_grad
    with torch.no_grad():
        maps = net(mixed.x, with_attention=True)[1]
    assert_close(mixed.share, transmix.shares(mixed.mask, maps))
    assert_close(mixed.saliency, attention.enlarged(maps, x))


@pytest.mark.parametrize("name", ["transmix", "sage_attention"])
def test_the_compiled_arithmetic_and_network_train_as_the_plain_ones(name, transformer):
    torch.compiler.reset()
    x, y = batch(h=32, w=32)
    found = []
    for compiled in (False, True):
        net = transformer()
        method = catalog.load(methods, name).seed(1)
        method.compiled = compiled
        forward = torch.compile(net, backend="aot_eager") if compiled else net
        losses = [train_step(method, forward, x, y) for _ in range(2)]
        found.append([*losses, *gradients(net), method.last.x, method.last.y])
    assert_close(*found, rtol=1e-4, atol=1e-6)


# a loop of one's own


def test_the_drop_in_is_the_method(transformer):
    (x, y), net = batch(), transformer()
    t = y.argmax(1)
    mix = TransMix(10, seed=3, area=0.2, pooling="average").bind(net)
    own = transmix.TransMix(criterion="cross_entropy", area=0.2, pooling="average").seed(3)
    want = own.mix(x, y, net)
    assert_close(mix(x, t), (want.x, want.y), rtol=0, atol=0)
    assert_close(mix.loss(x, t), own.loss(net, x, y))
    assert (mix.method.area, mix.method.pooling) == (0.2, "average")
    plain = TransMix(10, prob=0.0).bind(net).loss(x, t)
    assert_close(plain, F.cross_entropy(net(x), t))


@pytest.mark.parametrize("wrap", [lambda net: torch.compile(net, backend="aot_eager"),
                                  nn.DataParallel], ids=["compiled", "DataParallel"])
@pytest.mark.parametrize("build", [TransMix, lambda *a, **k: Mixer(
    sage_attention.SageAttention(criterion="cross_entropy"), *a, **k)], ids=["TransMix", "SAGE"])
def test_wrapped_networks_train_as_the_plain_one(build, wrap, transformer):
    torch.compiler.reset()
    x, t = batch()[0], torch.arange(5)
    one, two = transformer(), transformer()
    plain, wrapped = build(10, seed=0).bind(one), build(10, seed=0).bind(wrap(two))
    assert_close(plain(x, t), wrapped(x, t))
    for mix in (plain, wrapped):
        mix.loss(x, t).backward()
    assert_close(gradients(one), gradients(two))


def test_in_distributed_data_parallel(transformer, tmp_path):
    x, t = batch()[0], torch.arange(5)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        one, two = transformer(), transformer()
        ddp = DistributedDataParallel(two)
        for build in (TransMix, SAGE):
            for net, bound in ((one, one), (two, ddp)):
                net.zero_grad()
                build(10, seed=0).bind(bound).loss(x, t).backward()
            assert_close(gradients(one), gradients(two))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_changes_the_shares_little(half, transformer):
    x, t = batch()[0], torch.arange(5)
    shares = []
    for enabled in (False, True):
        mix = TransMix(10, seed=0).bind(transformer())
        with torch.autocast("cpu", half, enabled=enabled):
            loss = mix.loss(x, t)
        loss.backward()
        shares.append(mix.last.share)
        assert mix.last.share.dtype == torch.float32
    assert_close(*shares, rtol=0, atol=0.02)


# SAGE


def test_sage_takes_its_gradient_through_a_transformer(transformer):
    x, t = batch()[0], torch.arange(5)
    net = transformer()
    mix = SAGE(10, seed=0).bind(net)
    mix(x, t)
    z = x.clone().requires_grad_()
    grad, = torch.autograd.grad(F.cross_entropy(net(z), t), z)
    assert_close(mix.last.saliency, saliency(grad))
    losses = [SAGE(10, seed=0).bind(transformer()).loss(x, t) for _ in range(2)]
    assert losses[0] == losses[1] and losses[0].isfinite()


def test_sage_by_attention_is_sage_with_these_maps(transformer):
    x, y = batch()
    net, slow = transformer(), transformer()
    method = sage_attention.SageAttention(criterion="cross_entropy").seed(2)
    loss = train_step(method, net, x, y)
    with torch.no_grad():
        maps = slow(x, with_attention=True)[1]
    maps = maps.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert_close(method.last.saliency, maps)
    draws = sage.Sage().seed(2).draws(x)
    mixed = sage.mix(x, y, smooth(maps, 1.0), *draws)
    assert_close((method.last.x, method.last.y), (mixed.x, mixed.y))
    want = -(mixed.y * slow(mixed.x).log_softmax(1)).sum(1).mean()
    want.backward()
    assert_close(loss, want.detach())
    assert_close(gradients(net), gradients(slow))


def test_sage_by_attention_costs_one_forward_pass_more_than_vanilla(transformer):
    (x, y), net = batch(h=32, w=32), transformer()
    names = ("vanilla", "sage_attention", "sage")
    counted = {name: sum(timing.operations(
        lambda name=name: train_step(catalog.load(methods, name).seed(0), net, x, y)))
        for name in names}
    one = counted["vanilla"] / 3
    assert counted["sage_attention"] / one == pytest.approx(4, abs=0.1)
    assert counted["sage"] / one == pytest.approx(6, abs=0.1)


def test_maps_of_ones_own_take_the_place_of_attention():
    x, t = batch()[0], torch.arange(5)
    maps = x.abs().mean(1)
    found = Mixer(sage_attention.SageAttention(), 10, saliency=lambda x: maps, seed=1)(x, t)
    want = Mixer(sage.Sage(), 10, saliency=lambda x: maps, seed=1)(x, t)
    assert_close(found, want)


# which networks and methods go together


def test_methods_that_read_attention_are_suited_to_the_networks_that_give_it():
    every = catalog.names(methods)
    assert catalog.suited(methods, models, "vit_tiny") == every
    left = [name for name in every
            if name not in catalog.suited(methods, models, "preactresnet18")]
    assert left == ["sage_attention", "transmix"]
    for name in catalog.names(models):
        options = {"width": 8} if "width" in catalog.defaults(models, name) else {}
        net = catalog.load(models, name, classes=3, **options)
        assert attention.gives_attention(net) == bool(catalog.stated(models, name, "ATTENTION"))


PLAIN = catalog.load(models, "preactresnet18", classes=10, width=2)
X, T, Y = torch.zeros(5, 3, 16, 24), torch.arange(5), torch.eye(5, 10)
WRONG = [
    (lambda: TransMix(10).bind(PLAIN)(X, T),
     "TransMix reads attention, and PreActResNet gives none: take a transformer, such as vit_tiny"),
    (lambda: TransMix(10).bind(torch.compile(PLAIN)).loss(X, T), "and PreActResNet gives none"),
    (lambda: Mixer(sage_attention.SageAttention(), 10).bind(PLAIN).loss(X, T),
     "SageAttention reads attention, and PreActResNet gives none"),
    (lambda: transmix.TransMix().mix(X, Y), "TransMix reads the network's attention: give it"),
    (lambda: sage_attention.SageAttention().mix(X, Y), "looks through the network: give it"),
    (lambda: transmix.TransMix().mix(X, Y, Given(None)),
     "two things, the logits and maps (5, 1, h, w), not tuple"),
    (lambda: transmix.TransMix().mix(X, Y, Given(seen(4))), "maps (5, 1, h, w), not (4, 1, 4, 6)"),
    (lambda: transmix.mix(X, Y, T, (0, 0, 1, 1), seen(4)), "attention must be of shape (5, 1, h,"),
    (lambda: transmix.mix(X, Y, T, (0, 0, 1, 1), seen(), pooling="max"), "pooling is 'max'; it"),
    (lambda: TransMix(10, area=1.5), "TransMix: area is 1.5; it must be a number from 0 to 1"),
    (lambda: TransMix(10, pooling="max"), "it must be one of 'nearest', 'average'"),
    (lambda: sage_attention.SageAttention(reuse=0.3), "leaves nothing to reuse: it must be 0"),
    (lambda: sage_attention.SageAttention(norm="l1"), "norm is 'l1', of a gradient, and there is"),
]


@pytest.mark.parametrize("act, message", WRONG, ids=[message for _, message in WRONG])
def test_one_clear_error(act, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_copy_of_a_bound_mixer_mixes_alike(transformer):
    x, t = batch()[0], torch.arange(5)
    mix = TransMix(10, seed=0).bind(transformer())
    assert_close(copy.deepcopy(mix)(x, t), mix(x, t), rtol=0, atol=0)
