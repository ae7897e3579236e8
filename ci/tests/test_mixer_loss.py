"""The loss of a step: gradient reuse, reuse * clean + (1 - reuse) * mixed, whatever computes it and
whatever the network is wrapped in; and that the clean gradient is returned exactly once."""
import functools
import itertools

import oracles
import pytest
import torch
import torch.nn.functional as F
from mixers import ALWAYS, METHOD, Around, Segments, Temperature, every, own_maps
from steps import gradients, train_step
from torch import nn
from torch.testing import assert_close

from sagelib import SAGE, Mixer, catalog, methods
from sagelib.data.batches import Batches
from sagelib.data.dataset import Dataset
from sagelib.losses import LOSSES, one_hot
from sagelib.methods import sage
from sagelib.train import Recipe, Run

CRITERIA = {"bce": lambda z, y: F.binary_cross_entropy(z.softmax(1), y.to(z.dtype)),
            "cross_entropy": lambda z, y: F.cross_entropy(z, y.to(z.dtype))}


# who computes the gradient: -> the loss, what the method mixed in each batch, the scale

def by_loop(loss_of, method, x, t, half, batches):
    """A loop of one's own, over so many accumulated batches, under autocast with a GradScaler."""
    scaler, mixed, total = torch.amp.GradScaler("cpu", enabled=half == torch.float16), [], 0
    for images, target in zip(x.chunk(batches), t.chunk(batches), strict=True):
        with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
            loss = loss_of(images, target, scaler) / batches
        scaler.scale(loss).backward()
        mixed.append(method.last)
        total = total + loss.detach()
    return total, mixed, scaler.get_scale()


def drop_in(method, net, x, t, half, batches):
    """A Mixer in a loop of one's own."""
    mix = Mixer(method, 10, seed=1).bind(net)
    return by_loop(mix.loss, mix, x, t, half, batches)


def own_loop(method, net, x, t, half, batches):
    """The method itself in a loop of one's own."""
    method.seed(1)
    return by_loop(lambda x, t, scaler: method.loss(net, x, one_hot(t, 10), scaler), method, x, t,
                   half, batches)


def training_loop(method, net, x, t, half, batches):
    """A step of `train.Run`, whose optimizer leaves the gradient that it used, unscaled."""
    class Given(Batches):
        def take(self, index):
            return x[index], one_hot(t[index], 10)

    data = Dataset(torch.zeros(6, 3, 14, 18, dtype=torch.uint8), t, list("abcdefghij"), (.5,) * 3,
                   (.2,) * 3)
    precision = {None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[half]
    run = Run(net, Given(data, 6), method.seed(1), Recipe(epochs=1, precision=precision))
    run.begin(0)
    run.advance(0)
    return run.losses[0], [method.last], 1


# what the network is: -> the network, the weights that are watched

def plain(build, norm=False, wrap=lambda net: net):
    net = build(norm=norm).train()
    return wrap(net), list(net.parameters())


def weights_as_arguments(build):
    net, _ = plain(build)
    free = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}
    call = functools.partial(torch.func.functional_call, net, free)
    return Around(nn.Identity(), last=lambda z: call((z,))), list(free.values())


def a_layer_outside(build):
    net, weights = plain(build)
    torch.manual_seed(1)
    outer = nn.Conv2d(3, 3, 1).to(weights[0].dtype)
    return Around(net, outer.forward), list(outer.parameters())


class Output:
    """As networks of Hugging Face give their logits."""

    def __init__(self, logits):
        self.logits = logits


WRAPPED = {"compiled": lambda net: torch.compile(net, backend="aot_eager"),
           "segments that are recomputed": lambda net: Segments(net, False),
           "an output with logits": lambda net: Around(net, last=Output),
           "a tuple": lambda net: Around(net, last=lambda z: (z, None)),
           "a dict": lambda net: Around(net, last=lambda z: {"logits": z})}
CASES = {
    f"{step.__name__}, {criterion}, reuse {reuse}": dict(
        step=step, criterion=criterion, shares=(reuse, 1 - reuse), options={"reuse": reuse})
    for step, criterion, reuse in itertools.product((drop_in, own_loop, training_loop), CRITERIA,
                                                    (0, 0.3, 1))
} | {
    f"{step.__name__}, {half}, {criterion}": dict(step=step, half=half, criterion=criterion)
    for step, half, criterion in itertools.product((drop_in, training_loop),
                                                   (torch.bfloat16, torch.float16), CRITERIA)
} | {name: dict(network=functools.partial(plain, wrap=wrap)) for name, wrap in WRAPPED.items()} | {
    f"Co-Mixup, {step.__name__}, {criterion}": dict(
        step=step, name="comixup", criterion=criterion, options={"clean": 0.5},
        shares=(0.5 * size, 1), clean=CRITERIA["cross_entropy"])
    for step in (drop_in, training_loop) for criterion, size in (("bce", 0.2), ("cross_entropy", 1))
} | {
    "a function as criterion": dict(criterion=CRITERIA["bce"]),
    "a loss that learns": dict(criterion=Temperature()),
    "weights as arguments": dict(network=weights_as_arguments),
    "a layer outside the network": dict(network=a_layer_outside, reference=a_layer_outside),
    "BatchNorm": dict(network=functools.partial(plain, norm=True),
                      reference=functools.partial(plain, norm=True)),
    "two accumulated batches": dict(batches=2),
    "three accumulated batches, a GradScaler": dict(batches=3, half=torch.float16),
    "Co-Mixup, two accumulated batches": dict(batches=2, name="comixup", shares=(1, 1)),
    "a lambda for each image": dict(options={"per_image": True}),
    "without guidance": dict(options={"guided": False}),
    "another image's maps": dict(name="sage_controls", options={"maps": "other"}),
    "maps of one's own": dict(maps=own_maps),
    "a box": dict(name="sage_controls", options={"mixing": "box"}),
    "maps of one's own, not of the class score": dict(
        name="sage_controls", options={"gradient_of": "score"}, maps=own_maps),
} | {
    f"saliency of the class score, {name}": dict(
        name="sage_controls", **{"options": {"gradient_of": "score"}, **how})
    for name, how in {
        "bce": dict(criterion="bce"), "cross_entropy": {},
        "a training step": dict(step=training_loop),
        "float16": dict(half=torch.float16, criterion="bce"),
        "no reuse": dict(options={"gradient_of": "score", "reuse": 0}, shares=(0, 1)),
        "compiled": dict(network=functools.partial(plain, wrap=WRAPPED["compiled"])),
        "recomputed": dict(network=functools.partial(
            plain, wrap=WRAPPED["segments that are recomputed"])),
        "BatchNorm": dict(network=functools.partial(plain, norm=True),
                          reference=functools.partial(plain, norm=True)),
        "a layer outside the network": dict(network=a_layer_outside, reference=a_layer_outside),
        "two accumulated batches": dict(batches=2)}.items()
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_the_weighted_sum_of_the_clean_and_the_mixed_one(case, tiny, images):
    def check(step=drop_in, network=plain, reference=plain, name="sage", options=None,
              criterion="cross_entropy", clean=None, shares=(0.3, 0.7), half=None, batches=1,
              maps=None):
        def build(**how):
            return tiny(**how).to(torch.float32 if half else torch.float64)

        torch.compiler.reset()
        (net, weights), (slow, slow_weights) = network(build), reference(build)
        if isinstance(criterion, nn.Module):
            criterion.zero_grad()
            weights, slow_weights = [criterion.t], [criterion.t]
        x, t = images[0].to(slow_weights[0].dtype if half else torch.float64), images[1]
        method = catalog.load(methods, name, criterion=criterion, **(options or {}))
        method.saliency_fn = maps
        found, mixed, scale = step(method, net, x, t, half, batches)
        loss_of, value, expected = CRITERIA.get(criterion, criterion), 0, 0
        for part, target, made in zip(x.chunk(batches), t.chunk(batches), mixed, strict=True):
            losses = ((clean or loss_of)(slow(part), one_hot(target, 10)),
                      loss_of(slow(made.x), made.y))
            value += sum(a * b.detach() for a, b in zip(shares, losses, strict=True)) / batches
            expected += torch.cat([g.flatten() for g in oracles.weighted_gradient(
                losses, shares, slow_weights)]) / batches
        grad = torch.cat([w.grad.flatten() for w in weights]) / scale
        if half:
            assert (grad - expected).norm() < (0.1 if half == torch.bfloat16
                                               else 0.02) * expected.norm()
        else:
            assert_close(grad.to(expected), expected, rtol=1e-6, atol=1e-9)
        assert_close(found.to(value), value, rtol=0.02 if half else 1e-6, atol=0)
        assert maps or not torch.equal(mixed[0].x, x[:len(mixed[0].x)])

    check(**CASES[case])


@pytest.mark.parametrize("reuse", [0, 0.3])
def test_a_step_mixes_by_the_saliency_of_its_clean_pass(reuse, tiny):
    """Algorithm 1, lines 1 to 7, in loops."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 6, 8, generator=g, dtype=torch.float64)
    y = one_hot(torch.randint(10, (4,), generator=g), 10).double()
    options = dict(reuse=reuse, fraction=0.05)
    method, twin = sage.Sage(**options).seed(9), sage.Sage(**options).seed(9)
    train_step(method, tiny().double().train(), x, y)
    z = x.clone().requires_grad_()
    grad, = torch.autograd.grad(CRITERIA["bce"](tiny().double().train()(z), y), z)
    s = torch.stack([oracles.blur(m[0], 1.0, 2)[None] for m in oracles.saliency(grad, "l2")])
    pair, lam, tau = twin.draws(x)
    mixed, labels, shifts = oracles.sage(x, y, s, pair.tolist(), lam.double(), tau)
    assert torch.equal(method.last.tau, shifts) and len(tau) == 8
    assert_close(method.last.saliency, oracles.saliency(grad, "l2"))
    assert_close(method.last.x, mixed, rtol=1e-5, atol=1e-5)
    assert_close(method.last.y, labels, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reuse", [0, 0.3])
@pytest.mark.parametrize("bn", ["train", "eval"])
@pytest.mark.parametrize("soft", [False, True])
def test_saliency_of_the_class_score_is_that_of_each_images_own_score(reuse, bn, soft, tiny):
    """One image's score at a time; BatchNorm in training makes it depend on the other images."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 6, 8, generator=g, dtype=torch.float64)
    y = one_hot(torch.randint(10, (4,), generator=g), 10).double()
    y = 0.6 * y + 0.4 * y.roll(1, 0) if soft else y
    method = catalog.load(methods, "sage_controls", gradient_of="score", reuse=reuse, bn=bn).seed(9)
    net, slow = (tiny().double().train() for _ in range(2))
    for n in (net, slow):
        n[1].running_var *= 2
    train_step(method, net, x, y)
    slow.train(bn == "train")
    z, grad = x.clone().requires_grad_(), torch.zeros_like(x)
    for i in range(4):
        logits = slow(z)[i]
        grad += torch.autograd.grad(sum(y[i, k] * logits[k] for k in range(10)), z)[0]
    want = oracles.saliency(grad, "l2") / y.numel()
    assert_close(method.last.saliency, want, rtol=1e-6, atol=1e-12)
    of_loss = catalog.load(methods, "sage_controls", reuse=reuse, bn=bn).seed(9)
    train_step(of_loss, tiny().double().train(), x, y)
    assert not torch.allclose(of_loss.last.saliency, method.last.saliency)


def test_one_logit_has_the_score_of_the_class_that_it_speaks_for(tiny, images):
    net, y = tiny(classes=1).double(), torch.tensor([[1.0], [0.0], [0.3], [1.0], [0.0], [0.5]])
    two = tiny(classes=2).double()
    with torch.no_grad():
        two[5].weight.copy_(torch.cat([-net[5].weight, net[5].weight]) / 2)
        two[5].bias.copy_(torch.cat([-net[5].bias, net[5].bias]) / 2)
    method = catalog.load(methods, "sage_controls", gradient_of="score").seed(0)
    x = images[0].double()
    one = method.compute_saliency(net, x, y.double())
    other = method.compute_saliency(two, x, torch.cat([1 - y, y], 1).double())
    assert_close(one, 2 * other)  # a mean over one column, and over two


def test_a_step_by_the_class_score_is_one_forward_and_two_backwards_more(tiny, images):
    """Counted at the first layer, by what it gives and the gradients that come back to it."""
    passes = {"forward": 0, "backward": 0}
    net = tiny().train()

    def seen(module, inputs, out):
        passes["forward"] += 1
        out.register_hook(lambda g: passes.__setitem__("backward", passes["backward"] + 1))

    net[0].register_forward_hook(seen)
    for options, backwards, units in (({}, 2, 6), ({"gradient_of": "score"}, 3, 7),
                                      ({"gradient_of": "score", "reuse": 0}, 2, 5)):
        passes |= {"forward": 0, "backward": 0}
        method = catalog.load(methods, "sage_controls", **options).seed(0)
        train_step(method, net, images[0], one_hot(images[1], 10))
        assert passes == {"forward": 2, "backward": backwards} and method.units() == units


@every
@pytest.mark.parametrize("loss", LOSSES)
def test_a_mixers_loss_is_the_methods_own(kind, loss, tiny, images):
    one, two, given = tiny().train(), tiny().train(), ALWAYS.get(kind, {})
    mix = kind(num_classes=10, seed=3, loss=loss, **given).bind(one)
    method = METHOD[kind](criterion=loss, **given).seed(3)
    found = mix.loss(*images)
    found.backward()
    assert_close(found.detach(), train_step(method, two, images[0], one_hot(images[1], 10)))
    assert_close(gradients(one), gradients(two), rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))


def test_the_clean_gradient_is_returned_once(tiny, images):
    net = tiny(norm=False)
    loss = SAGE(num_classes=10, seed=0).bind(net).loss(*images)
    loss.backward(retain_graph=True)
    once = gradients(net)
    loss.backward()
    assert_close(gradients(net), [2 * g for g in once])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_second_derivative_is_refused_where_the_clean_gradient_is_reused(tiny, images):
    net = tiny(norm=False)
    loss = SAGE(10, seed=0).bind(net).loss(*images)
    with pytest.raises(RuntimeError, match=r"second derivative .* reuse=0"):
        torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    loss = SAGE(10, seed=0, reuse=0).bind(net).loss(*images)
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    sum(g.square().sum() for g in grads).backward()


def test_the_loops_scaler_scales_the_clean_pass(tiny, images, monkeypatch):
    scaler, asked = torch.amp.GradScaler("cpu"), []
    scale = scaler.scale
    monkeypatch.setattr(scaler, "scale", lambda z: asked.append(z) or scale(z))
    SAGE(10, seed=0).bind(tiny()).loss(*images, scaler=scaler)
    assert len(asked) == 1
