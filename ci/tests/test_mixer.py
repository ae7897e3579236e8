"""The methods in a loop of one's own: the network left as found, the reuse form against plain sums,
and every kind of loop that is promised: half precision, two processes, accumulated gradients,
compiled networks, other networks."""
import copy
import inspect
import pickle
import warnings

import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from mixers import ALL, LOOK, METHOD
from steps import train_step
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import sagelib
from sagelib import (
    SAGE,
    CoMixup,
    CutMix,
    ManifoldMixup,
    Method,
    Mixed,
    Mixer,
    Mixup,
    PuzzleMix,
    SaliencyMix,
    catalog,
    methods,
)
from sagelib.losses import one_hot
from sagelib.methods import manifold_mixup, mixup, puzzlemix, sage, saliencymix
from sagelib.rearrange import best_offset, offsets, total_saliency
from sagelib.saliency import saliency, smooth

every = pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)


def state(net):
    buffers = {k: v.clone() for k, v in net.state_dict().items()}
    parameters = {
        k: (p.requires_grad, None if p.grad is None else p.grad.clone())
        for k, p in net.named_parameters()
    }
    modes = {
        k: (m.training, getattr(m, "track_running_stats", None))
        for k, m in net.named_modules()
    }
    return buffers, parameters, modes


def gradients(net):
    return [p.grad.clone() for p in net.parameters()]


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


@every
def test_a_call_is_the_methods_own_mix(kind, tiny, images):
    net = tiny().train()
    given = {"stages": 0} if kind is ManifoldMixup else {"prob": 1.0} if kind is SaliencyMix else {}
    mix = kind(num_classes=10, seed=3, **given).bind(net)
    method = METHOD[kind](criterion="cross_entropy", **given).seed(3)
    expected = method.mix(images[0], one_hot(images[1], 10), net)
    x, y = mix(*images)
    assert torch.equal(x, expected.x) and torch.equal(y, expected.y)
    assert torch.equal(mix.last.x, x) and (mix.last.saliency is not None) == (kind in LOOK)


@every
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_the_loss_has_the_gradient_of_the_methods_own_step(kind, loss, tiny, images):
    one, two = tiny().train(), tiny().train()
    given = {"stages": 0} if kind is ManifoldMixup else {"prob": 1.0} if kind is SaliencyMix else {}
    mix = kind(num_classes=10, seed=3, loss=loss, **given).bind(one)
    method = METHOD[kind](criterion=loss, **given).seed(3)
    found = mix.loss(*images)
    found.backward()
    assert_close(found.detach(), train_step(method, two, images[0], one_hot(images[1], 10)))
    assert_close(gradients(one), gradients(two), rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))


def test_reuse_is_the_weighted_sum_of_two_gradients(tiny, images):
    net, (x, t) = tiny(norm=False).double(), images
    x = x.double()
    mix = SAGE(num_classes=10, seed=1, reuse=0.3,
               loss=lambda z, y: F.cross_entropy(z, y.to(z.dtype))).bind(net)
    mix.loss(x, t).backward()
    mixed, slow = mix.last, copy.deepcopy(net)
    slow.zero_grad()
    clean = torch.autograd.grad(F.cross_entropy(slow(x), t), list(slow.parameters()))
    guided = torch.autograd.grad(F.cross_entropy(slow(mixed.x), mixed.y.double()),
                                 list(slow.parameters()))
    for p, c, g in zip(net.parameters(), clean, guided, strict=True):
        assert_close(p.grad, 0.3 * c + 0.7 * g, rtol=1e-12, atol=1e-14)


def test_accumulated_gradients_and_a_loss_that_is_scaled(tiny, images):
    net, (x, t) = tiny(norm=False), images
    mix = SAGE(num_classes=10, seed=1).bind(net)
    parts = []
    for k in range(2):
        net.zero_grad()
        mix.loss(x[3 * k:3 * k + 3], t[3 * k:3 * k + 3]).backward()
        parts.append(gradients(net))
    net.zero_grad()
    mix = SAGE(num_classes=10, seed=1).bind(net)
    for k in range(2):
        (mix.loss(x[3 * k:3 * k + 3], t[3 * k:3 * k + 3]) / 2).backward()
    assert_close(gradients(net), [(a + b) / 2 for a, b in zip(*parts, strict=True)])


def test_a_frozen_layer_stays_without_a_gradient(tiny, images):
    net = tiny().train()
    net[0].weight.requires_grad_(False)
    SAGE(num_classes=10).bind(net).loss(*images).backward()
    assert net[0].weight.grad is None and net[0].bias.grad is not None


def test_running_statistics_move_twice_with_reuse_and_never_in_a_call(tiny, images):
    counts = {}
    for bn in ("train", "batch", "eval"):
        net = tiny().train()
        mix = SAGE(num_classes=10, bn=bn).bind(net)
        mix(*images)
        called = net[1].num_batches_tracked.item()
        mix.loss(*images)
        counts[bn] = called, net[1].num_batches_tracked.item() - called
    assert counts == {"train": (0, 2), "batch": (0, 1), "eval": (0, 1)}
    net, frozen = tiny().train(), tiny().train()
    # what "batch" means: the same maps as without running statistics
    frozen[1].track_running_stats = False
    maps = [Mixer(sage.Sage(bn="batch"), 10, seed=0).bind(n) for n in (net, frozen)]
    assert torch.equal(maps[0](*images)[0], maps[1](*images)[0]) and net[1].track_running_stats


# labels and options


def test_class_numbers_soft_labels_and_smoothing(images):
    x, t = images
    soft = torch.rand(6, 10).softmax(1)
    for target, expected in ((t, one_hot(t, 10)), (t.int(), one_hot(t, 10)), (soft, soft),
                             (soft.double(), soft)):
        mix = Mixup(num_classes=10, alpha=0)
        assert_close(mix(x, target)[1], expected)
    y = Mixup(num_classes=10, alpha=0, label_smoothing=0.1)(x, t)[1]
    assert_close(y.max(1).values, torch.full((6,), 0.91))
    assert torch.equal(y.argmax(1), t)
    # of class numbers alone
    assert_close(Mixup(num_classes=10, alpha=0, label_smoothing=0.1)(x, soft)[1], soft)


def test_it_mixes_when_it_is_told_and_as_often(images, tiny):
    x, t = images
    mix = SAGE(num_classes=10, prob=0).bind(tiny())
    assert torch.equal(mix(x, t)[0], x) and mix.last is None
    mix = Mixup(num_classes=10)
    mix.enabled = False
    assert torch.equal(mix(x, t)[1], one_hot(t, 10))
    mix, mixed = Mixup(num_classes=10, prob=0.3, seed=0), 0
    for _ in range(500):
        mix(x, t)
        mixed += mix.last is not None
    assert 110 < mixed < 190  # 150 expected, four deviations of 10
    often = SaliencyMix(num_classes=10, prob=1.0, seed=0)
    assert often.prob == 1.0 == often.method.prob and SaliencyMix(
        num_classes=10).prob == 0.5 == inspect.signature(SaliencyMix).parameters["prob"].default
    mixed = 0
    half = SaliencyMix(num_classes=10, seed=0)
    for _ in range(300):
        half(x, t)
        mixed += half.last is not None
    assert 115 < mixed < 185


def test_the_signature_names_every_option():
    found = inspect.signature(SAGE).parameters
    assert found["u"].default == 0.6 and found["reuse"].default == 0.3
    assert found["loss"].default == "cross_entropy"
    assert sorted(c.__name__ for c in (*ALL, Mixer, Method, Mixed)) == sorted(sagelib.__all__)
    assert "SAGE" in dir(sagelib)
    with pytest.raises(AttributeError, match="no attribute 'sage_mix'"):
        _ = sagelib.sage_mix


def test_the_seed_settles_all_draws_and_copies_go_on_alike(tiny, images):
    net = tiny()
    first = SAGE(num_classes=10, seed=5).bind(net)
    torch.manual_seed(0)
    a = [first(*images)[0] for _ in range(2)]
    twin, stored = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    torch.manual_seed(1)
    again = SAGE(num_classes=10, seed=5).bind(net)
    assert all(torch.equal(again(*images)[0], each) for each in a) and not torch.equal(*a)
    c = first(*images)[0]
    assert torch.equal(twin(*images)[0], c) and torch.equal(stored(*images)[0], c)


def test_an_option_that_is_not_there_is_an_error(tiny):
    with pytest.raises(ValueError, match="Sage mixes images alone: leave out stages="):
        SAGE(10).bind(tiny(), stages=["0"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'eta'"):
        SAGE(num_classes=10, eta=0.7)
    with pytest.raises(TypeError, match="unexpected keyword argument 'saliency'"):
        Mixup(num_classes=10, saliency=len)


@pytest.mark.parametrize("wrong, message", [
    (lambda: SAGE(num_classes=10, u=1.5), "Sage: u is 1.5"),
    (lambda: SAGE(num_classes=0), "num_classes is 0"),
    (lambda: Mixup(num_classes=10, prob=1.2), "prob is 1.2"),
    (lambda: CutMix(10, loss="mse"), "criterion is 'mse'"),
    (lambda: CutMix(num_classes=10, label_smoothing=1), "label_smoothing is 1"),
    (lambda: Mixer(mixup.Mixup(), 10, saliency=len), "Mixup looks at no saliency"),
    (lambda: setattr(Mixup(num_classes=10), "saliency", len), "Mixup looks at no saliency"),
    (lambda: Mixer("sage", 10), "method is 'sage'; give a method itself, such as catalog.load"),
    (lambda: SAGE(nn.Linear(1, 1)), "num_classes is Linear"),
    (lambda: SAGE(10, seed="a"), "seed is 'a'"),
    (lambda: SAGE(10, saliency=torch.ones(6, 8, 9)), "saliency is a Tensor; it must be a function"),
    (lambda: SAGE(10, loss=nn.CrossEntropyLoss), r"give an instance: CrossEntropyLoss\(\)"),
    (lambda: SaliencyMix(num_classes=10, published=True, per_image=True), "one box for the whole "
     "batch"),
])
def test_wrong_options_are_one_clear_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_wrong_batches_are_one_clear_error(tiny, images):
    x, t = images
    mix = SAGE(num_classes=10).bind(tiny())
    for batch, message in (((x, t + 5), "from 0 to 9, not"), ((x, t[:5]), "class indices \\(6,\\)"),
                           ((x, torch.rand(6, 9)), "soft labels \\(6, 10\\)"),
                           ((x, t > 3), "torch.bool"), ((x.byte(), t), "normalised floats"),
                           ((x[0], t), "normalised floats"), ((x[:0], t[:0]), "normalised floats")):
        with pytest.raises(ValueError, match=message):
            mix(*batch)
    with pytest.raises(ValueError, match="num_classes=7 it must give logits"):
        SAGE(num_classes=7).bind(tiny())(x, t % 7)
    with pytest.raises(RuntimeError, match=r"Sage needs the network: call .bind\(model\) first"):
        SAGE(num_classes=10)(x, t)
    with pytest.raises(RuntimeError, match="inference_mode"), torch.inference_mode():
        mix(x, t)
    with pytest.raises(ValueError, match="images are on cpu, targets on meta"):
        mix(x, t.to("meta"))
    with pytest.raises(TypeError, match=r"nn\.Module that is called with the images alone, not a "
                                        r"function"):
        SAGE(num_classes=10).bind(two_processes)
    blind = nn.Sequential(Blind(), *tiny(norm=False)[1:])
    for form in (lambda m: m(x, t), lambda m: m.loss(x, t)):
        with pytest.raises(RuntimeError, match="passes no gradient to the images"):
            form(SAGE(num_classes=10).bind(blind))
    for own, message in (
        (lambda z: z[:, 0, :7], r"gave maps \(6, 1, 7, 18\)"),
        (lambda z: None, "gave a NoneType"),
        (lambda z: -z[:, 0].abs(), "negative"),
        (lambda z: z[:, 0] * torch.nan, "not finite"),
    ):
        with pytest.raises(ValueError, match=f"saliency= gave.*{message.removeprefix('gave')}"):
            SAGE(num_classes=10, saliency=own)(x, t)
    for batch, message in (((x.numpy(), t), "images must be a tensor, not a ndarray"),
                           ((x, t.tolist()), "targets must be a tensor, not a list")):
        with pytest.raises(TypeError, match=message):
            mix(*batch)
    with pytest.raises(ValueError, match=r"the loss function gave \(6,\)"):
        SAGE(10, loss=nn.CrossEntropyLoss(reduction="none")).bind(tiny()).loss(x, t)
    with pytest.raises(ValueError, match=r"needs as many; this network has 0: .*'0', '2'"):
        ManifoldMixup(
            num_classes=10).bind(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())[::2])


def test_a_call_under_no_grad_still_finds_saliency(tiny, images):
    with torch.no_grad():
        found = SAGE(num_classes=10, seed=0).bind(net := tiny())(*images)
    assert torch.equal(found[0], SAGE(num_classes=10, seed=0).bind(net)(*images)[0])


# saliency of one's own, and draws for each image


@pytest.mark.parametrize("kind", [SAGE, PuzzleMix, CoMixup, SaliencyMix], ids=lambda c: c.__name__)
def test_saliency_of_ones_own_needs_no_network(kind, images):
    x, t = images
    own = lambda z: z.abs().mean(1)  # noqa: E731
    mix = kind(num_classes=10, saliency=own, seed=4,
               **({"prob": 1.0} if kind is SaliencyMix else {}))
    found = mix(x, t)
    method = METHOD[kind](criterion="cross_entropy",
                          **({"prob": 1.0} if kind is SaliencyMix else {})).seed(4)
    expected = method.mix_with_saliency(x, one_hot(t, 10), x.abs().mean(1, keepdim=True))
    assert torch.equal(found[0], expected.x) and torch.equal(found[1], expected.y)
    assert not torch.equal(found[0], x)
    if kind is SaliencyMix:  # the box of each image lies around its partner's peak
        for i, j in enumerate(mix.last.pair.tolist()):
            peak = x[j].abs().mean(0).flatten().argmax().item()
            assert mix.last.mask[i, 0].flatten()[peak] == 0 or mix.last.share[i] == 1


def test_reuse_with_saliency_of_ones_own_still_trains_on_the_clean_batch(tiny, images):
    net, (x, t) = tiny(norm=False), images
    mix = SAGE(num_classes=10, saliency=lambda z: z.abs().mean(1), seed=2).bind(net)
    loss = mix.loss(x, t)
    with torch.no_grad():
        expected = 0.3 * F.cross_entropy(net(x), t) + 0.7 * F.cross_entropy(
            net(mix.last.x), mix.last.y)
    assert_close(loss.detach(), expected)


def test_shifts_of_its_own_for_each_pair_are_searched_as_one_by_one():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 7, 1, 9, 12, generator=g)
    a[0, 0, :4], b[1, 0, 3:] = 0, 0
    tau = torch.randint(-12, 13, (7, 30, 2), generator=g)
    found = total_saliency(a, b, tau)
    for i in range(7):
        assert_close(found[i],
                     total_saliency(a[i:i + 1], b[i:i + 1], tau[i])[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(
            best_offset(a, b, tau)[i],
            best_offset(a[i:i + 1], b[i:i + 1], tau[i])[0])
    for wrong in (tau[:6], tau[None], tau[:, :0], tau.float()):
        with pytest.raises(ValueError, match=r"\(N, 2\) or \(7, N, 2\)"):
            total_saliency(a, b, wrong)


def test_per_image_every_pair_has_its_own_lambda_and_shifts(images):
    x, y = images[0], one_hot(images[1], 10)
    s = torch.rand(6, 1, 14, 18)
    method, twin = (sage.Sage(per_image=True, fraction=0.02).seed(4) for _ in range(2))
    found = method.mix_with_saliency(x, y, s)
    pair, lam = twin.draw_permutation(6, "cpu"), twin.draw_uniform(0, 0.6, "cpu", 6)
    tau = twin.candidates(14, 18, "cpu", 6)
    assert tau.shape == (6, int(0.02 * 27 * 35), 2) and len(lam.unique()) == 6
    every = set(map(tuple, offsets(14, 18).tolist()))
    # no shift twice
    assert all(len(set(map(tuple, each.tolist())) & every) == tau.shape[1] for each in tau)
    for i in range(6):
        both = torch.stack([torch.tensor(i), pair[i]])
        alone = sage.mix(x[both], y[both], smooth(s[both]), torch.tensor([1, 0]), lam[i], tau[i])
        assert_close(found.x[i], alone.x[0])
        assert_close(found.y[i], alone.y[0])
        assert torch.equal(found.tau[i], alone.tau[0])


@pytest.mark.parametrize("name",
                         ["mixup", "cutmix", "saliencymix", "puzzlemix", "manifold_mixup", "sage"])
def test_per_image_and_per_batch_shares(name, tiny):
    x, y = torch.randn(40, 3, 16, 16), torch.eye(40)
    options = {"prob": 1.0} if name == "saliencymix" else {}
    for per_image in (False, True):
        method = catalog.load(methods, name, per_image=per_image, **options).seed(1)
        mixed = method.mix(x, y, tiny(classes=40))
        assert_close(mixed.y.sum(1), torch.ones(40))
        for i, j in enumerate(mixed.pair.tolist()):
            assert_close(mixed.y[i, i], mixed.share[i] if i != j else torch.tensor(1.0))
        if name in ("mixup", "cutmix", "manifold_mixup"):
            assert (len(mixed.share.unique()) > 10) == per_image
    lam = torch.rand(40)
    together = mixup.mix(x, y, mixed.pair, lam)
    for i, j in enumerate(mixed.pair.tolist()):
        assert_close(together.x[i], lam[i] * x[i] + (1 - lam[i]) * x[j])


def test_puzzle_mix_with_a_lambda_for_each_image_is_one_by_one():
    x, y, s = torch.rand(5, 3, 16, 16), torch.eye(5), torch.rand(5, 1, 16, 16)
    pair, lam = torch.tensor([1, 2, 3, 4, 0]), torch.linspace(0.05, 0.95, 5)
    puzzle = catalog.load(methods, "puzzlemix")
    found = puzzlemix.mix(x, y, s, pair, lam, 4, puzzle.transport)
    for i in range(5):
        alone = puzzlemix.mix(x, y, s, pair, lam[i], 4, puzzle.transport)
        assert_close(found.x[i], alone.x[i])
        assert_close(found.y[i], alone.y[i])


# Manifold Mixup, whose call tells the network where to mix


def test_manifold_mixup_mixes_in_the_next_forward_and_only_there(tiny, images):
    net, (x, t) = tiny().train(), images
    mix, places = ManifoldMixup(num_classes=10, seed=0).bind(net), set()
    for _ in range(12):
        twin = copy.deepcopy(net)
        ManifoldMixup(num_classes=10).bind(twin).unbind()
        for hook in [k for stage in twin.stages for k in stage._forward_hooks]:
            twin[2]._forward_hooks.pop(hook, None)
            twin[3]._forward_hooks.pop(hook, None)
        mixed, y = mix(x, t)
        inside = mix.method.pending is not None
        place = 0 if not inside else 1 + mix.method.attached.index(mix.method.pending[0])
        places.add(place)
        lam = torch.ones(3)
        lam[place] = mix.last.share[0]
        expected = manifold_mixup.forward(twin, x, mix.last.pair, lam)
        net.eval()
        net(x)  # a forward that does not train passes by
        net.train()
        assert (mix.method.pending is not None) == inside
        assert_close(net(mixed), expected)
        assert mix.method.pending is None
        assert_close(y, mixup.mix(x, one_hot(t, 10), mix.last.pair, mix.last.share).y)
    assert places == {0, 1, 2}
    mix.unbind()
    assert not net[2]._forward_hooks and not net[3]._forward_hooks


def test_a_copy_of_a_network_is_not_mixed_in(tiny, images):
    """A moving average of the weights is a deep copy, hooks and all."""
    for wrap in (lambda n: n, torch.compile):
        net = tiny().train()
        mix = ManifoldMixup(num_classes=10, seed=0).bind(wrap(net))
        mix(*images)
        while mix.method.pending is None:
            mix(*images)
        average = copy.deepcopy(net)
        assert_close(average(images[0]), tiny().train()(images[0]))
        assert mix.method.pending is not None  # the network itself has not been run yet
        mix.unbind()
        with pytest.raises(RuntimeError, match=r"call \.bind"):
            mix(*images)
    with pytest.raises(ValueError, match="use DistributedDataParallel"):
        mix.bind(nn.DataParallel(net))


def test_manifold_mixup_in_a_network_without_stages(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 10)).train()
    mix = ManifoldMixup(num_classes=10, seed=0).bind(net, stages=["1", net[2]])
    for _ in range(4):
        mix.loss(*images).backward()
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(UserWarning, match="has not been run"),
    ):
        for _ in range(10):
            mix(*images)


# kinds of loops


@pytest.mark.parametrize("kind", LOOK, ids=lambda c: c.__name__)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision(kind, half, tiny, images):
    """Maps under autocast against float32, with a loss as small as after long training; float16
    with a GradScaler."""
    net, (x, t) = tiny(norm=False).train(), images
    with torch.no_grad():
        net[5].bias += 12 * one_hot(t, 10).mean(0)
    mix = kind(num_classes=10, seed=0).bind(net)
    mix(x, t)
    maps = mix.last.saliency
    scaler = torch.amp.GradScaler("cpu", enabled=half == torch.float16, init_scale=2.0**16)
    with torch.autocast("cpu", half):
        mix = kind(num_classes=10, seed=0).bind(net)
        mixed, y = mix(x, t)
        together = torch.corrcoef(
            torch.stack([maps.flatten(), mix.last.saliency.flatten()]).double())[0, 1]
        assert together > 0.98 and (mix.last.saliency.amax((1, 2, 3)) > 0).all()
        assert mixed.dtype == x.dtype and y.dtype == torch.float32
    reference = copy.deepcopy(net)
    kind(num_classes=10, seed=1).bind(reference).loss(x, t).backward()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    mix = kind(num_classes=10, seed=1).bind(net)
    with torch.autocast("cpu", half):
        loss = mix.loss(x, t, scaler=scaler)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        assert (p.grad - q.grad).norm() < (0.05 if half == torch.float16 else 0.3) * q.grad.norm()


def test_float16_without_a_scaler_does_not_lose_the_map(tiny):
    """A gradient of 1e-8 a pixel is nothing in float16; the maps that a call looks for are there
    all the same."""
    net = tiny(norm=False).train()
    x, t = torch.randn(100, 3, 32, 32), torch.randint(10, (100,))
    with torch.no_grad():
        net[0].weight *= 0.01
    with torch.autocast("cpu", torch.float16):
        mix = SAGE(num_classes=10).bind(net)
        mix(x, t)
    assert mix.last.saliency.flatten(1).gt(0).float().mean() > 0.9


def two_processes(rank, folder, port):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    net, x, t = torch.load(folder / "start.pt", weights_only=False)
    ddp, mine, found = DistributedDataParallel(net), slice(6 * rank, 6 * rank + 6), []
    for reuse in (0.3, 0.0):
        mix = SAGE(num_classes=10, seed=rank, reuse=reuse).bind(ddp)
        net.zero_grad()
        mix.loss(x[mine], t[mine]).backward()
        found.append(gradients(net))
    net.zero_grad()
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    careful = DistributedDataParallel(net, find_unused_parameters=True)
    SAGE(num_classes=10, seed=rank).bind(careful).loss(x[mine], t[mine]).backward()
    assert net.unused.grad is None
    del net.unused
    assert all(
        torch.allclose(a, b, rtol=1e-12) for a, b in zip(gradients(net), found[0], strict=True))
    net.zero_grad()
    mix = SAGE(num_classes=10, seed=rank).bind(ddp)
    with ddp.no_sync():  # of two accumulated batches the first exchanges nothing
        mix.loss(x[mine], t[mine]).backward()
    own = gradients(net)
    mix.loss(x[mine], t[mine]).backward()
    twice = gradients(net)
    net.zero_grad()
    alone = SAGE(num_classes=10, seed=rank).bind(net)
    for _ in range(2):
        alone.loss(x[mine], t[mine]).backward()
    torch.save((own, twice, gradients(net)), folder / f"accumulated{rank}.pt")
    net.zero_grad()
    mixed, y = SAGE(num_classes=10, seed=rank).bind(ddp)(x[mine], t[mine])
    F.cross_entropy(ddp(mixed), y.to(mixed.dtype)).backward()
    torch.save([*found, gradients(net)], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one_with_the_joint_batch(tiny, tmp_path):
    """The form with reuse, without, and the plain call, in DistributedDataParallel."""
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    net, g = tiny(norm=False).double(), torch.Generator().manual_seed(0)
    x, t = torch.randn(12, 3, 14, 18, generator=g,
                       dtype=torch.float64), torch.randint(10, (12,), generator=g)
    plain = nn.Sequential(*net)  # a class of torch, which the other processes know
    torch.save((plain, x, t), tmp_path / "start.pt")
    torch.multiprocessing.spawn(two_processes, (tmp_path, port), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for a, b in zip(*ranks, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    kept = [torch.load(tmp_path / f"accumulated{rank}.pt", weights_only=True) for rank in range(2)]
    assert not all(torch.equal(p, q) for p, q in zip(kept[0][0], kept[1][0], strict=True))
    assert_close(kept[0][1], kept[1][1])
    assert_close(kept[0][1], [(p + q) / 2 for p, q in zip(kept[0][2], kept[1][2], strict=True)])
    # one process: each half mixed by the draws of its rank, then one loss over the joint batch
    halves = [(x[:6], t[:6]), (x[6:], t[6:])]
    for form, reuse in enumerate((0.3, 0.0, 0.0)):
        mixers = [SAGE(num_classes=10, seed=rank).bind(plain) for rank in range(2)]
        made = [mix(*half) for mix, half in zip(mixers, halves, strict=True)]
        mixed, y = (torch.cat(parts) for parts in zip(*made, strict=True))
        plain.zero_grad()
        guided, clean = F.cross_entropy(plain(mixed), y.double()), F.cross_entropy(plain(x), t)
        ((1 - reuse) * guided + reuse * clean).backward()
        assert_close(ranks[0][form], gradients(plain), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [SAGE, ManifoldMixup], ids=lambda c: c.__name__)
def test_a_compiled_network(kind, tiny, images):
    torch.compiler.reset()
    one, two = tiny().train(), tiny().train()
    compiled = torch.compile(one, backend="aot_eager")
    plain, fast = (
        kind(num_classes=10, seed=0).bind(two),
        kind(num_classes=10, seed=0).bind(compiled),
    )
    for _ in range(4):
        for net, mix in ((two, plain), (compiled, fast)):
            net.zero_grad()
            mix.loss(*images).backward()
            x, y = mix(*images)
            F.cross_entropy(net(x), y).backward()
        assert_close(gradients(one), gradients(two), rtol=1e-4, atol=1e-6)
    assert_close(list(one.buffers()), list(two.buffers()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size, n", [((224, 224), 2), ((14, 18), 1), ((1, 1), 3)])
@every
def test_large_images_single_images_and_single_pixels(kind, size, n):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4),
                        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    x, t = torch.randn(n, 3, *size), torch.randint(10, (n,))
    mix = kind(num_classes=10, **({"stages": 0} if kind is ManifoldMixup else {})).bind(net)
    mixed, y = mix(x, t)
    assert mixed.shape == x.shape and mixed.isfinite().all() and y.isfinite().all()
    mix.loss(x, t).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_clean_gradient_is_given_back_once(tiny, images):
    net = tiny(norm=False)
    loss = SAGE(num_classes=10, seed=0).bind(net).loss(*images)
    loss.backward(retain_graph=True)
    once = gradients(net)
    loss.backward()
    assert_close(gradients(net), [2 * g for g in once])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_channels_last_stays(tiny, images):
    x = images[0].contiguous(memory_format=torch.channels_last)
    assert SAGE(num_classes=10).bind(tiny())(x, images[1])[0].is_contiguous(
        memory_format=torch.channels_last)


class Blind(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 6, 3, padding=1)

    @torch.no_grad()
    def forward(self, z):
        return super().forward(z)


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("wrap",
                         [Output, lambda z: (z, None), lambda z: {"logits": z}, lambda z: z])
def test_what_a_network_gives_may_be_wrapped(wrap, tiny, images):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny(norm=False)

        def forward(self, z):
            return wrap(self.net(z))

    net = Wrapped()
    SAGE(num_classes=10, seed=0).bind(net).loss(*images).backward()
    plain = tiny(norm=False)
    SAGE(num_classes=10, seed=0).bind(plain).loss(*images).backward()
    assert_close(gradients(net), gradients(plain))


@pytest.mark.parametrize("name", catalog.names(methods))
def test_any_method_of_the_catalogue_drops_in(name, tiny, images):
    mix = Mixer(catalog.load(methods, name), 10, seed=0).bind(tiny().train())
    for _ in range(3):
        mix.loss(*images).backward()
        assert mix.last.x.shape == images[0].shape
    if name != "manifold_mixup":
        assert_close(mix(*images)[1].sum(1), torch.ones(6))


def test_options_are_read_and_changed_on_the_method(tiny, images):
    mix = SAGE(10, seed=1, reuse=0.3).bind(tiny())
    assert mix.method.u == 0.6 and mix.method.reuse == 0.3 and "u=0.6" in repr(mix)
    assert "seed=1" in repr(mix)
    mix.method.u = 0.0  # nothing of the image itself is left
    mix(*images)
    assert mix.last.share.max() < 0.01
    with pytest.raises(ValueError, match="u is 2"):
        mix.method.u = 2
    assert mix.method.u == 0.0
    with pytest.raises(AttributeError, match="'Mixer' object has no attribute 'u'"):
        mix.u  # noqa: B018
    for name in ("eta", "u", "loss", "last", "model_"):
        with pytest.raises(AttributeError, match=f"a Mixer has no '{name}' that .* set on its "
                                                 "`method`: .*, u, "):
            setattr(mix, name, 0.5)
    for name in ("eta", "losses"):
        with pytest.raises(AttributeError, match=f"Sage has no option '{name}'; it has: "
                                                 "criterion, u, reuse"):
            setattr(mix.method, name, 0.5)
    for name, value in (("prob", 7), ("prob", "x"), ("label_smoothing", 1), ("seed", 0.5),
                        ("saliency", 3), ("num_classes", 0), ("enabled", 1)):
        with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
            setattr(mix, name, value)
    assert mix.prob == 1 and mix.seed == 1


def test_options_that_exclude_each_other_are_refused_when_they_are_set():
    merged, peaks = catalog.load(methods, "sage_merged"), saliencymix.SaliencyMix(published=True)
    for method, name, value, why in (
        (merged, "reuse", 0, "must be above 0"),
        (merged, "bn", "eval", "bn 'train'"),
        (peaks, "per_image", True, "one box for the whole batch"),
    ):
        before = getattr(method, name)
        with pytest.raises(ValueError, match=why):
            setattr(method, name, value)
        assert getattr(method, name) == before


def test_a_seed_that_is_set_later_counts_from_then_on(tiny, images):
    net = tiny()
    mix, one = SAGE(10, seed=2).bind(net), SAGE(10, seed=1).bind(net)
    mix(*images)
    mix.seed = 1
    assert torch.equal(mix(*images)[0], one(*images)[0])
    mix.seed = None
    torch.manual_seed(3)
    drawn = mix(*images)[0]
    torch.manual_seed(3)
    assert torch.equal(SAGE(10).bind(net)(*images)[0], drawn)


def test_a_mode_of_batchnorm_can_be_taken_back(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 10))
    mix = SAGE(10).bind(net)
    # batches that the running statistics see in `loss`
    for mode, batches in (("batch", 1), ("train", 2), ("eval", 1)):
        mix.method.bn, before = mode, int(net[1].num_batches_tracked)
        mix.loss(*images)
        assert net[1].num_batches_tracked == before + batches
    with pytest.raises(ValueError, match="bn is 'sometimes'"):
        mix.method.bn = "sometimes"


def test_a_stopped_run_goes_on_with_the_same_draws(tiny, images, tmp_path):
    net = tiny()
    whole, first, second = (SAGE(10, seed=1, prob=0.5).bind(net) for _ in range(3))
    expected = [whole(*images)[0] for _ in range(8)]
    assert all(torch.equal(first(*images)[0], z) for z in expected[:4])
    torch.save(first.state_dict(), tmp_path / "mix.pt")
    second.load_state_dict(torch.load(tmp_path / "mix.pt", weights_only=True))
    assert all(torch.equal(second(*images)[0], z) for z in expected[4:])
    assert SAGE(10).state_dict() == {} and not torch.equal(expected[0], expected[4])


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, k):
        return torch.full((3, 8, 8), float(k)), k


def test_a_worker_of_a_loader_does_not_look_through_its_own_copy_of_the_network(tiny):
    mix = SAGE(10).bind(tiny())
    loader = torch.utils.data.DataLoader(
        Rows(), 4, num_workers=1,
        collate_fn=lambda rows: mix(*torch.utils.data.default_collate(rows)))
    with pytest.raises(RuntimeError, match="DataLoader's worker, whose copy of the network never "
                                           "learns"):
        next(iter(loader))


@pytest.mark.parametrize("name", ["guidedmixup", "keepaugment"])
def test_saliency_of_ones_own_for_later_methods(name, images):
    x, t = images
    found = Mixer(catalog.load(methods, name), 10, saliency=lambda z: z.abs().mean(1), seed=4)(x, t)
    expected = (
        catalog.load(methods, name)
        .seed(4)
        .mix_with_saliency(x, one_hot(t, 10), x.abs().mean(1, keepdim=True))
    )
    assert torch.equal(found[0], expected.x) and torch.equal(found[1], expected.y)
    assert not torch.equal(found[0], x)


def test_saliency_uses_equation_1(tiny, images):
    net = tiny(norm=False)
    mix = SAGE(num_classes=10).bind(net)
    mix(*images)
    z = images[0].clone().requires_grad_()
    grad = torch.autograd.grad(F.cross_entropy(net(z), images[1]), z)[0]
    assert_close(mix.last.saliency, saliency(grad))
