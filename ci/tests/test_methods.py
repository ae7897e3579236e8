"""Every method in the catalogue keeps the contract and is its definition; SAGE does what its
authors' code does."""
from copy import deepcopy

import oracles
import pytest
import torch
import torch.nn.functional as F
from steps import gradients, train_step
from torch.testing import assert_close

from sagelib import catalog, methods
from sagelib.losses import LOSSES, one_hot
from sagelib.methods import cutmix, mixup, sage, sage_controls
from sagelib.models.preactresnet18 import PreActResNet
from sagelib.rearrange import offsets
from sagelib.saliency import normalise, saliency, smooth

NAMES = catalog.names(methods)
# they mix no two images
ALONE = {name for name in NAMES if catalog.load(methods, name).LABEL == "the image's own"}
AREA = {"transmix": {"area": 1.0}}  # whose labels are not the images' shares as it comes
every = pytest.mark.parametrize("name", NAMES)


def batch(n=5, classes=10, h=8, w=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, h, w, generator=g)
    return x, one_hot(torch.randint(classes, (n,), generator=g), classes)


@every
@pytest.mark.parametrize("n, classes", [(1, 2), (5, 10), (7, 200)])
def test_labels_are_distributions_and_inputs_stay(name, n, classes, tiny):
    x, y = batch(n, classes)
    before = x.clone(), y.clone()
    mixed = catalog.load(methods, name).seed(1).mix(x, y, tiny(classes))
    assert mixed.x.shape == x.shape and mixed.y.shape == y.shape
    assert mixed.x.isfinite().all() and mixed.y.min() >= 0
    assert_close(mixed.y.sum(1), torch.ones(n))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not mixed.x.requires_grad


@every
def test_same_seed_same_gradient_and_another_seed_another(name, tiny):
    x, y = batch()

    def gradient(seed):
        net = tiny()
        method = catalog.load(methods, name).seed(seed)
        for _ in range(2):
            train_step(method, net, x, y)
        return torch.cat([g.flatten() for g in gradients(net)])

    assert torch.equal(gradient(1), gradient(1))
    method = catalog.load(methods, name).seed(1)
    train_step(method, tiny(), x, y)
    fresh = catalog.load(methods, name).seed(1)
    fixed = (torch.equal(method.generator.get_state(), fresh.generator.get_state())
             and method.cpu_rng.getstate() == fresh.cpu_rng.getstate())  # it drew nothing
    assert torch.equal(gradient(1), gradient(2)) == fixed


@pytest.mark.parametrize("name", sorted(set(NAMES) - ALONE))
def test_labels_are_the_shares_of_one_hot_images(name, tiny):
    """Image i is 1 in channel i alone: the channel means of a mixed image are what its label says,
    up to black fill."""
    n, h, w = 5, 8, 12
    x = torch.zeros(n, n, h, w)
    x[range(n), range(n)] = 1
    net = tiny(n)
    net[0] = torch.nn.Conv2d(n, 6, 3, padding=1)
    for seed in range(4):
        mixed = catalog.load(methods, name, **AREA.get(name, {})).seed(seed).mix(
            x, torch.eye(n), net)
        # pixels that no image covers belong to the partner's label
        black = 1 - mixed.x.sum(1).mean((1, 2))
        owed = mixed.y.clone()
        if mixed.tau is not None:
            owed[range(n), mixed.pair] -= black
        else:
            assert_close(black, torch.zeros(n))
        assert_close(mixed.x.mean((2, 3)), owed)


@every
@pytest.mark.parametrize("loss", list(LOSSES))
def test_backward_adds_to_the_gradient_and_reports_the_loss(name, loss, tiny):
    x, y = batch()
    net = tiny()
    value = train_step(catalog.load(methods, name, criterion=loss).seed(3), net, x, y)
    once = gradients(net)
    twice = tiny()
    for p, g in zip(twice.parameters(), once, strict=True):
        p.grad = g.clone()
    again = train_step(catalog.load(methods, name, criterion=loss).seed(3), twice, x, y)
    assert value.ndim == 0 and not value.requires_grad and again == value
    assert_close(gradients(twice), [2 * g for g in once])


@every
def test_a_step_under_bfloat16_autocast_is_nearly_that_in_float32(name, tiny):
    x, y = batch()
    net = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_step(catalog.load(methods, name).seed(0), net, x, y)
    plain = train_step(catalog.load(methods, name).seed(0), tiny(), x, y)
    assert_close(loss, plain, rtol=0.05, atol=0.01)
    assert all(p.grad.isfinite().all() for p in net.parameters())


@every
def test_mix_leaves_gradients_and_mode_alone(name, tiny):
    net = tiny().train()
    x, y = batch()
    catalog.load(methods, name).seed(0).mix(x, y, net)
    assert all(p.grad is None for p in net.parameters()) and net.training and net[1].training


@every
def test_a_network_without_batchnorm_trains(name, tiny):
    net = tiny(norm=False)
    assert train_step(catalog.load(methods, name).seed(0), net, *batch()).isfinite()


def test_bce_is_the_loop():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)) * 3
    y = torch.rand(3, 4).softmax(1)
    slow = oracles.bce(logits.double(), y)
    assert LOSSES["bce"](logits, y).item() == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("classes, want", [(10, 0.3251), (100, 0.0560)])
def test_bce_of_equal_logits(classes, want):
    found = LOSSES["bce"](torch.zeros(5, classes), one_hot(torch.arange(5), classes))
    assert found.item() == pytest.approx(want, abs=1e-4)


def test_mixup_is_the_loop():
    x, y = batch()
    pair, lam = torch.tensor([3, 1, 0, 4, 2]), torch.tensor([0.1, 0.5, 1.0, 0.0, 0.7])
    mixed = mixup.mix(x, y, pair, lam)
    assert_close((mixed.x, mixed.y), oracles.mixup(x, y, pair, lam))


def test_cutmix_pastes_the_box_and_counts_its_pixels():
    x, y = batch()
    pair, box = torch.tensor([3, 1, 0, 4, 2]), (2, 3, 7, 12)
    mixed = cutmix.mix(x, y, pair, box)
    assert torch.equal(mixed.x, oracles.pasted(x, x[pair], [box] * 5))
    share = 1 - 5 * 9 / (8 * 12)
    assert_close(mixed.y, share * y + (1 - share) * y[pair])


@pytest.mark.parametrize("lam, centre, want", [
    (0.75, (4.0, 6.0), (2, 3, 6, 9)), (0.75, (0.0, 0.0), (0, 0, 2, 3)),
    (0.75, (8.0, 12.0), (6, 9, 8, 12)), (1.0, (4.0, 6.0), (4, 6, 4, 6)),
    (0.0, (4.0, 6.0), (0, 0, 8, 12)), (0.0, (8.0, 6.0), (4, 0, 8, 12))])
def test_cutmix_box_is_clipped_at_the_border(lam, centre, want):
    assert tuple(cutmix.box(8, 12, torch.tensor(lam), torch.tensor(centre)).tolist()) == want


def test_sage_is_algorithm_1_in_loops():
    x, y = batch(4, h=5, w=7)
    s = torch.rand(4, 1, 5, 7, generator=torch.Generator().manual_seed(5))
    pair, tau = torch.tensor([2, 0, 3, 1]), offsets(5, 7)[::3]
    mixed = sage.mix(x, y, s, pair, 0.4, tau)
    images, labels, shifts = oracles.sage(x, y, s, pair.tolist(), 0.4, tau)
    assert torch.equal(mixed.tau, shifts)
    assert_close(mixed.x, images)
    assert_close(mixed.y, labels)


@pytest.mark.parametrize("ours, theirs", [("x", "mixed_x"), ("y", "y_soft"), ("mask", "mask"),
                                          ("share", "lam"), ("tau", "tau")])
def test_sage_mix_is_the_authors(ours, theirs, vectors):
    v = vectors("sage_mix")
    mixed = sage.mix(v["x"], one_hot(v["y"], 10), v["grad"], v["index"], float(v["alpha"]),
                     v["cand_tau"].long())
    assert_close(getattr(mixed, ours), v[theirs], rtol=0, atol=0 if ours == "tau" else 1e-5,
                 check_dtype=False)


class Given(sage.Sage):
    """SAGE with the draws of the authors' run."""

    given, order = None, None

    def draw_permutation(self, n, device):
        return self.given["draw1_torch.randperm"] if n < 63 * 63 else self.order

    def draw_uniform(self, low, high, device):
        return self.given["sampled_alpha"].float()


def test_sage_step_is_the_authors(vectors):
    v = vectors("sage_step")
    net = PreActResNet((1, 1, 1, 1), 10, 4)
    net.load_state_dict({k[6:]: t for k, t in v.items() if k.startswith("param:")})
    method = Given(norm="l1", reuse=0.3)
    # their order: columns first
    place = torch.stack([1 + v["offsets"] % 63 - 32, 1 + v["offsets"] // 63 - 32], 1)
    row = (offsets(32, 32)[None] == place[:, None]).all(2).nonzero()[:, 1]
    method.given, method.order = v, torch.cat([row, row.new_zeros(3969 - 39)])
    optimizer = torch.optim.SGD(net.parameters(), float(v["lr"]), 0.9, nesterov=True,
                                weight_decay=1e-4)
    train_step(method, net, v["x"], one_hot(v["y"], 10))
    parameters = dict(net.named_parameters())
    for k in v:
        if k.startswith("grad:"):
            assert_close(parameters[k[5:]].grad, v[k], rtol=1e-3, atol=1e-6, msg=k)
    optimizer.step()
    state = net.state_dict()
    for k in v:
        if k.startswith("after:"):
            assert_close(state[k[6:]], v[k], rtol=1e-4, atol=1e-5, msg=k)


@pytest.mark.parametrize("fraction, count", [(0.01, 39), (0.1, 396), (0.5, 1984), (1.0, 3969),
                                             (0.0, 1)])
def test_candidates_are_a_fraction_of_all_without_repeats(fraction, count):
    tau = sage.Sage(fraction=fraction).seed(0).candidates(32, 32, "cpu")
    assert len(tau) == count == len(set(map(tuple, tau.tolist()))) and tau.abs().max() <= 31


def test_without_rearrangement_nothing_moves(tiny):
    mixed = sage.Sage(rearranged=False).seed(0).mix(*batch(), tiny())
    assert not mixed.tau.any()


def test_without_guidance_the_partner_is_pasted_whole():
    x, y = batch(3)
    s, pair, tau = torch.rand(3, 1, 8, 12), torch.tensor([1, 2, 0]), torch.tensor([[2, -3]])
    mixed = sage.mix(x, y, s, pair, 0.5, tau, guided=False)
    for n in range(3):
        want = x[n].clone()
        want[:, 2:, :9] = x[pair[n]][:, :6, 3:]
        assert torch.equal(mixed.x[n], want)
    assert_close(mixed.share, torch.full((3,), 1 - 6 * 9 / 96))


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("lam", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("reading", ["whole", "rounded", "box", "uniform"])
def test_every_reading_of_without_guidance_is_its_loop(reading, lam, moved):
    x, y = batch(4, h=6, w=9)
    s = torch.rand(4, 1, 6, 9, generator=torch.Generator().manual_seed(5)) ** 4
    pair = torch.tensor([2, 0, 3, 1])
    tau = offsets(6, 9)[::7] if moved else torch.zeros(1, 2, dtype=torch.long)
    if reading == "whole":
        mixed = sage.mix(x, y, s, pair, lam, tau, guided=False)
    else:
        mixed = sage_controls.mix(x, y, s, pair, lam, tau, reading)
    assert_close((mixed.x, mixed.y),
                 oracles.without_guidance(x, y, s, pair.tolist(), lam, tau, reading))
    assert torch.equal(mixed.tau, sage.mix(x, y, s, pair, lam, tau).tau)  # SAGE's shift


def test_the_box_is_the_partners_peak_moved_with_it():
    """By hand: 8 x 8, lambda 3/4, so a box of 4 x 4 from two before the peak to one after it."""
    x, y, s = torch.zeros(2, 3, 8, 8), torch.eye(2), torch.full((2, 1, 8, 8), 0.01)
    x[1], s[1, 0, 3, 5] = 1, 1.0
    mixed = sage_controls.mix(x, y, s, torch.tensor([1, 0]), 0.75, torch.tensor([[2, -3]]), "box")
    want = torch.zeros(8, 8)
    want[3:7, 0:4] = 1
    assert torch.equal(mixed.x[0], want.expand(3, 8, 8)) and mixed.share[0] == 0.75
    edge = sage_controls.mix(x, y, s, torch.tensor([1, 0]), 0.75, torch.tensor([[4, -5]]), "box")
    want = torch.zeros(8, 8)
    want[5:, 0:2] = 1  # the rest left the frame with the partner
    assert torch.equal(edge.x[0], want.expand(3, 8, 8)) and edge.share[0] == 1 - 6 / 64


@pytest.mark.parametrize("options", [{"mixing": "rounded"}, {"mixing": "box"},
                                     {"mixing": "uniform"}, {"mixing": "box", "per_image": True}])
def test_a_readings_draws_are_sages(options, tiny):
    x, y = batch(6)
    many = {"per_image": options.get("per_image", False)}
    method = catalog.load(methods, "sage_controls", fraction=0.1, **options)
    found = method.seed(3).mix(x, y, tiny())
    twin = catalog.load(methods, "sage", fraction=0.1, **many).seed(3)
    usual = twin.mix(x, y, tiny())
    assert torch.equal(found.pair, usual.pair) and torch.equal(found.tau, usual.tau)
    lam = catalog.load(methods, "sage", fraction=0.1, **many).seed(3).draws(x)[1]
    want = sage_controls.mix(x, y, smooth(usual.saliency), found.pair, lam, found.tau[:, None],
                             options["mixing"])
    assert_close((found.x, found.y), (want.x, want.y))


def test_without_any_option_the_controls_are_sage_and_named_as_ever():
    fresh, usual = (catalog.load(methods, name) for name in ("sage_controls", "sage"))
    assert fresh.options() == usual.options()
    found = catalog.load(methods, "sage_controls", mixing="box", gradient_of="score").options()
    assert found == {**usual.options(), "mixing": "box", "gradient_of": "score"}


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_a_bad_saliency_never_reaches_image_or_label(bad, lam):
    x, y = batch(4)
    s = torch.rand(4, 1, 8, 12)
    s[1], s[2, 0, 3, 3] = bad, bad
    mixed = sage.mix(x, y, s, torch.tensor([1, 2, 3, 0]), lam, offsets(8, 12))
    assert mixed.x.isfinite().all() and mixed.y.isfinite().all()
    assert_close(mixed.y.sum(1), torch.ones(4))


@pytest.mark.parametrize("name, dataset, model, want", [
    ("sage", "cifar10", "preactresnet18", {"u": 0.6, "reuse": 0.3}),
    ("sage", "cifar100", "preactresnet18", {"u": 0.5, "reuse": 0.3}),
    ("sage", "cifar100", "resnext29_4_24", {"u": 0.7, "reuse": 0.5}),
    ("sage", "shapes", "preactresnet18", {}), ("mixup", "cifar10", "x", {}),
    ("cutout", "cifar100", "preactresnet18", {"size": 0.25})])
def test_paper_settings_are_the_papers(name, dataset, model, want):
    assert catalog.settings(methods, name, "paper", dataset, model) == want


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_draws_from_beta_have_its_mean_and_variance(alpha):
    method = mixup.Mixup().seed(0)
    lam = torch.stack([method.draw_beta(alpha, "cpu") for _ in range(4000)])
    assert lam.mean().item() == pytest.approx(0.5, abs=0.03)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_uniform_draws_have_their_range_and_mean():
    method = mixup.Mixup().seed(0)
    u = torch.stack([method.draw_uniform(0, 0.6, "cpu") for _ in range(4000)])
    assert u.min() >= 0 and u.max() <= 0.6 and u.mean().item() == pytest.approx(0.3, abs=0.02)


def test_normalised_saliency_is_what_the_method_uses():
    """Two maps that differ by a factor give the same mix."""
    x, y = batch(2)
    s, pair = torch.rand(2, 1, 8, 12), torch.tensor([1, 0])
    one = sage.mix(x, y, s, pair, 0.4, offsets(8, 12))
    far = s * torch.tensor([1e-9, 1e9])[:, None, None, None]
    two = sage.mix(x, y, far, pair, 0.4, offsets(8, 12))
    assert_close(one.x, two.x, rtol=1e-4, atol=1e-5)
    assert_close(normalise(s).sum((1, 2, 3)), torch.ones(2))


@every
def test_deepcopied_network_trains_alike(name, tiny):
    """Nothing of a step is left behind in the network: a copy made after it takes the same next
    step."""
    net, x, y = tiny(), *batch()
    train_step(catalog.load(methods, name).seed(0), net, x, y)
    twin = deepcopy(net)
    one, two = (train_step(catalog.load(methods, name).seed(5), n, x, y) for n in (net, twin))
    assert one == two


# beyond the paper: the controls, and the one-step-stale merged batch


def test_uniform_saliency_needs_no_network_to_be_right():
    x, y, s = torch.randn(6, 3, 8, 10), batch(6)[1], torch.rand(6, 1, 8, 10)
    method = catalog.load(methods, "sage_controls", maps="uniform", fraction=1.0, u=1.0).seed(1)
    found = method.mix_with_saliency(x, y, s)
    again = catalog.load(methods, "sage", u=1.0).seed(1)
    pair, lam = again.draw_permutation(6, "cpu"), again.draw_uniform(0, 1.0, "cpu")
    for i in range(6):
        flat = torch.full((8, 10), 1 / 80)
        v = oracles.total_saliency(lam * flat, (1 - lam) * flat, offsets(8, 10))
        assert v.max() - v[(offsets(8, 10) == found.tau[i]).all(1).nonzero().item()] < 1e-6
    assert torch.equal(found.pair, pair)


def test_another_images_saliency_is_never_its_own():
    x, y, s = torch.randn(5, 3, 6, 6), batch(5)[1], torch.rand(5, 3, 6, 6)
    other = catalog.load(methods, "sage_controls", maps="other", sigma=0).seed(2)
    one = other.mix_with_saliency(x, y, saliency(s))
    usual = catalog.load(methods, "sage", sigma=0)
    two = usual.seed(2).mix_with_saliency(x, y, saliency(s[[4, 0, 1, 2, 3]]))
    assert_close(one.x, two.x)
    own = usual.seed(2).mix_with_saliency(x, y, saliency(s))
    assert not torch.equal(one.mask, own.mask)


def test_a_random_shift_is_any_of_the_candidates():
    x, y, s = torch.randn(40, 3, 6, 6), batch(40)[1], torch.rand(40, 3, 6, 6)
    method = catalog.load(methods, "sage_controls", searched=False, fraction=0.05).seed(0)
    mixed = method.mix_with_saliency(x, y, saliency(s))
    twin = catalog.load(methods, "sage", fraction=0.05).seed(0)
    pair, lam, tau = (twin.draw_permutation(40, "cpu"), twin.draw_uniform(0, 0.6, "cpu"),
                      twin.candidates(6, 6, "cpu"))
    # 6 candidates, 40 draws
    assert set(map(tuple, mixed.tau.tolist())) == set(map(tuple, tau.tolist()))
    maps = smooth(saliency(s))
    for t in tau:
        mine = (mixed.tau == t).all(1)
        assert_close(mixed.x[mine], sage.mix(x, y, maps, pair, lam, t[None]).x[mine])


def test_the_merged_step_is_two_passes_with_saliency_one_step_old(tiny):
    """Gradients and running statistics of one pass over both halves, against a pass for each, in
    float64."""
    x = torch.randn(3, 6, 3, 16, 16, dtype=torch.float64)
    y = torch.stack([batch(6)[1].double()] * 3)
    net, slow = (tiny().double().train() for _ in range(2))
    method = catalog.load(methods, "sage_merged", criterion="cross_entropy", reuse=0.3).seed(4)
    twin = catalog.load(methods, "sage", criterion="cross_entropy").seed(4)
    mixed = None
    for k in range(3):
        net.zero_grad()
        slow.zero_grad()
        loss = train_step(method, net, x[k], y[k])
        expected, clean = 0, x[k].clone().requires_grad_()
        if mixed is not None:
            part = 0.7 * F.cross_entropy(slow(mixed.x), mixed.y)
            part.backward()
            expected = part.detach()
        part = (0.3 if k else 1.0) * F.cross_entropy(slow(clean), y[k])
        part.backward()
        mixed = twin.mix_with_saliency(x[k], y[k], saliency(clean.grad))
        assert_close(loss, (expected + part).detach())
        assert_close(method.waiting, [mixed.x, mixed.y])
        for p, q in zip(net.parameters(), slow.parameters(), strict=True):
            assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
        for p, q in zip(net.buffers(), slow.buffers(), strict=True):
            assert_close(p, q)
        with torch.no_grad():
            for p in [*net.parameters(), *slow.parameters()]:
                p -= 0.1 * p.grad
    before = [z.clone() for z in method.waiting]
    # an odd batch is an ordinary step, and what waits goes on waiting
    train_step(method, net, x[0][:4], y[0][:4])
    assert all(torch.equal(a, b) for a, b in zip(before, method.waiting, strict=True))
    assert not any("forward" in vars(m) for m in net.modules())


@pytest.mark.parametrize("options", [{"reuse": 0}, {"bn": "eval"}])
def test_the_merged_step_refuses_what_one_pass_cannot_do(options):
    with pytest.raises(ValueError, match="reuse must be above 0 and bn 'train'"):
        catalog.load(methods, "sage_merged", **options)
