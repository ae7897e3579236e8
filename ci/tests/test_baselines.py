"""The baselines by value: against loops, against exhaustive search, and against what the authors'
code computed."""
import itertools
import os
import subprocess
import sys

import numpy as np
import oracles
import pytest
import torch
from networks import network_for
from steps import train_step
from torch.testing import assert_close

from sagelib import CoMixup, PuzzleMix, catalog, methods, models
from sagelib.losses import LOSSES, one_hot
from sagelib.methods import (
    comixup,
    cutout,
    guidedmixup,
    keepaugment,
    manifold_mixup,
    mixup,
    puzzlemix,
    randaugment,
    rmix,
    saliencymix,
)
from sagelib.saliency import normalise
from sagelib.solvers import assignment, grid_labelling, min_cut, swap_moves
from sagelib.solvers.transport import move, transport_plan


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def labels(n, classes=10):
    return one_hot(torch.arange(n) % classes, classes)


# Manifold Mixup

@pytest.mark.parametrize("place", range(3))
def test_manifold_mixup_mixes_what_a_stage_gives(place, tiny):
    net, x, pair, lam = tiny(), draw(5, 3, 8, 12), torch.tensor([3, 1, 0, 4, 2]), 0.3
    weight = torch.ones(3)
    weight[place] = lam
    h = lam * x + (1 - lam) * x[pair] if place == 0 else x
    for k, layer in enumerate(tiny()):
        h = layer(h)
        if (place, k) in ((1, 2), (2, 3)):
            h = lam * h + (1 - lam) * h[pair]
    assert_close(manifold_mixup.forward(net, x, pair, weight), h)
    assert not any(m._forward_hooks for m in net.modules())


def test_manifold_mixup_of_images_is_mixup():
    x, y, pair = draw(5, 3, 8, 12), labels(5), torch.tensor([3, 1, 0, 4, 2])
    assert_close(manifold_mixup.mix(x, y, pair, 0.3).x, mixup.mix(x, y, pair, 0.3).x)


def test_manifold_mixup_mixes_inside_a_compiled_network_too(tiny):
    net, x, pair, weight = (tiny(), draw(4, 3, 8, 8), torch.tensor([1, 2, 3, 0]),
                            torch.tensor([1.0, 0.4, 1.0]))
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    assert_close(manifold_mixup.forward(compiled, x, pair, weight),
                 manifold_mixup.forward(net, x, pair, weight))


def test_manifold_mixup_removes_its_hooks_when_the_network_fails(tiny):
    net = tiny()
    with pytest.raises(RuntimeError):
        manifold_mixup.forward(net, torch.rand(2, 5, 8, 8), torch.tensor([1, 0]), torch.ones(3))
    assert not any(m._forward_hooks for m in net.modules())


def test_manifold_mixup_chooses_each_place(tiny):
    """With lambda near 1/2 the loss tells where it was mixed."""
    x, y, losses = draw(4, 3, 8, 8), labels(4), {}
    for seed in range(12):
        method = manifold_mixup.ManifoldMixup(alpha=100.0).seed(seed)
        pair, lam = method.draw_permutation(4, "cpu"), method.draw_beta(100.0, "cpu")
        share = lam * torch.eye(4) + (1 - lam) * torch.eye(4)[pair]
        value = train_step(manifold_mixup.ManifoldMixup(alpha=100.0).seed(seed), tiny(), x, y)
        for place in range(3):
            weight = torch.ones(3)
            weight[place] = lam
            want = LOSSES["bce"](manifold_mixup.forward(tiny(), x, pair, weight), share @ y)
            if torch.isclose(value, want, rtol=1e-6):
                losses.setdefault(place, []).append(seed)
    assert set(losses) == {0, 1, 2}


def test_manifold_mixup_needs_stages():
    with pytest.raises(ValueError, match="stages"):
        train_step(manifold_mixup.ManifoldMixup().seed(0), torch.nn.Flatten(), draw(2, 3, 4, 4),
                   labels(2, 48))


# SaliencyMix

@pytest.mark.parametrize("lam", [0.0, 0.2, 0.7, 1.0])
def test_saliencymix_box_is_the_loop(lam):
    s = draw(7, 9, 13)
    s[0, :, :] = 1  # ties: the first counts
    s[1, 8, 12] = 2
    got = saliencymix.box(s, lam)
    assert got.tolist() == [oracles.boxes_of_peak(m.numpy(), lam) for m in s]
    assert saliencymix.box(s[3], lam).tolist() == got[3].tolist()


@pytest.mark.parametrize("c", range(3))
def test_saliencymix_is_the_authors(c, vectors):
    v = vectors("saliencymix")
    ours = saliencymix.fine_grained(v[f"case{c}_u8"][None])[0]
    assert torch.equal(ours, v[f"case{c}_sal_map_u8_from_uint8_image"].long())
    box = saliencymix.box(v[f"case{c}_sal_map_u8"], float(v[f"case{c}_lam_drawn"]))
    assert torch.equal(box, v[f"case{c}_bbox_r0c0r1c1"])
    mixed = saliencymix.mix(draw(8, 3, 32, 32), labels(8), v[f"case{c}_perm"], box)
    assert_close(mixed.share, v[f"case{c}_lam_final"].float().expand(8))


def test_saliencymix_as_published_computes_saliency_of_normalised_images(vectors):
    v = vectors("saliencymix")
    published = saliencymix.fine_grained_of_floats(v["float0"][None])[0]
    assert torch.equal(published, v["case0_sal_map_u8"].long())


@pytest.mark.parametrize("h, w", [(32, 32), (20, 45), (5, 7), (64, 48)])
def test_the_detector_is_opencvs_byte_for_byte(h, w):
    images = (torch.nn.functional.interpolate(draw(6, 3, 4, 5),
                                              (h, w), mode="bilinear") * 255).byte()
    images = torch.cat([images, (draw(4, 3, h, w) * 255).byte(), torch.zeros(1, 3, h, w).byte()])
    assert torch.equal(saliencymix.fine_grained(images), saliencymix.opencv(images))


@pytest.fixture
def squares():
    """Four black images with a white square each, and their labels."""
    x = torch.zeros(4, 3, 32, 32)
    for n, (i, j) in enumerate([(4, 4), (4, 24), (24, 4), (24, 24)]):
        x[n, :, i:i + 4, j:j + 4] = 1
    return x, labels(4)


def test_saliencymix_box_of_each_image_holds_its_partners_square(squares):
    mixed = saliencymix.SaliencyMix(prob=1.0).seed(3).mix(*squares)
    assert ((mixed.mask == 0).float().sum((1, 2, 3)) > 0).all()
    inside = (mixed.mask == 0) & (squares[0][mixed.pair][:, :1] == 1)
    assert inside.flatten(1).any(1).all()


def test_saliencymix_as_published_has_one_box_for_the_batch(squares):
    published = saliencymix.SaliencyMix(prob=1.0, published=True).seed(3).mix(*squares)
    assert (published.mask == published.mask[0]).all()


def test_saliencymix_with_prob_0_changes_nothing(squares):
    never = saliencymix.SaliencyMix(prob=0.0).seed(3).mix(*squares)
    assert torch.equal(never.x, squares[0]) and torch.equal(never.y, squares[1])


# Puzzle Mix

@pytest.mark.parametrize("seed, h, w", [(0, 2, 2), (1, 3, 3), (2, 2, 4), (3, 1, 5), (4, 3, 2)])
def test_min_cut_is_the_best_of_all_labellings(seed, h, w):
    unary = draw(6, 3, h, w, seed=seed) * torch.tensor([0.1, 0.3, 1, 2, 5, 20])[:, None, None, None]
    down, right = draw(6, h - 1, w, seed=9), draw(6, h, w - 1, seed=seed + 20)
    found = min_cut.min_cut(unary, down, right)
    value = min_cut.energy(found, unary, down, right)
    for k in range(6):
        terms = [t[k].double().numpy() for t in (unary, down, right)]
        every = [oracles.convex_energy(z, *terms) for z in oracles.grids(h, w, 3)]
        assert value[k].item() == pytest.approx(min(every), abs=1e-6)
        assert oracles.convex_energy(found[k].numpy(),
                                     *terms) == pytest.approx(value[k].item(), abs=1e-6)


@pytest.mark.parametrize("blocks, side", [(2, 32), (4, 32), (8, 32), (16, 32), (2, 16)])
def test_puzzle_terms_are_the_definition(blocks, side):
    x, s = draw(3, 3, side, side), draw(3, 1, side, side, seed=1)
    pair, lam = torch.tensor([1, 2, 0]), 0.3
    unary, down, right = puzzlemix.energy_terms(x, s, pair, lam, blocks)
    z = torch.randint(3, (3, blocks, blocks), generator=torch.Generator().manual_seed(2))
    got = min_cut.energy(z, unary, down, right)
    for n in range(3):
        k = int(pair[n])
        images = [t.double().numpy() for t in (x[n], x[k], s[n, 0], s[k, 0])]
        want = oracles.puzzle_energy(1 - z[n].numpy() / 2, *images, lam, 1.2, 0.5, 0.2,
                                    min(4, side // blocks))
        assert got[n].item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("n", [4, 8])
def test_puzzle_labels_are_as_good_as_the_authors_or_better(n, vectors):
    v = vectors("puzzlemix")
    prior = oracles.puzzle_prior(v[f"{n}_lam0"].item(), 0.2, n)
    partner, own = v[f"{n}_gc_unary_img2"], v[f"{n}_gc_unary_img1"]
    unary = torch.stack([partner + prior[0], (own + partner) / 2 + prior[1], own + prior[2]], 1)
    terms = unary, *(v[f"{n}_gc_pw_{axis}"] + 1.2 / n / 16 for axis in "xy")
    theirs, ours = v[f"{n}_labels0"][:2].long(), min_cut.min_cut(*terms)
    gain = min_cut.energy(theirs, *terms) - min_cut.energy(ours, *terms)
    assert gain.min() >= -1e-7
    assert all(torch.equal(a, b) for a, b, g in zip(ours, theirs, gain, strict=True) if g < 1e-7)
    assert torch.equal(puzzlemix.labels_by_swaps(*terms), theirs)


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_puzzle_transport_is_the_authors_plan(n, which, vectors):
    v = vectors("puzzlemix")
    shown = torch.nn.functional.interpolate(1 - v[f"{n}_labels"].float()[:, None] / 2, 32)
    s, patch = v["s"][:, None], min(4, 32 // n)
    maps, m = (s, shown) if which == 1 else (s[v["pair"].long()], 1 - shown)
    assert torch.equal(transport_plan(maps, m, (patch, patch)), v[f"{n}_plan{which}"].long())


@pytest.mark.parametrize("t", [2, 3, 5])
def test_transport_is_the_dense_definition(t):
    g = torch.Generator().manual_seed(t)
    s = torch.rand(20, 1, t, t, generator=g) ** 3
    m = (torch.rand(20, 1, t, t, generator=g) < 0.5).float() * torch.rand(
        20, 1, t, t, generator=g).round()
    plan, worth = transport_plan(s, m, (1, 1)), normalise(s)
    for n in range(20):
        inside = m[n, 0] > 0
        want = oracles.transport(worth[n, 0].numpy(), inside.numpy(), t, 0.8)
        assert plan[n][inside.flatten()].tolist() == want[inside.numpy().ravel()].tolist()


def test_move_puts_patches_where_the_plan_says():
    x = draw(1, 2, 4, 6)
    moved = move(x, torch.tensor([[5, -1, 0, 3, 3, 1]]), (2, 2))
    assert torch.equal(moved[0, :, :2, :2], x[0, :, 2:, 4:]) and not moved[0, :, :2, 2:4].any()
    assert torch.equal(moved[0, :, :2, 4:], x[0, :, :2, :2])
    assert torch.equal(moved[0, :, 2:, 4:], x[0, :, :2, 2:4])


@pytest.mark.parametrize("h, w, blocks", [(32, 32, 16), (24, 40, 4), (9, 13, 2), (7, 5, 4),
                                          (64, 48, 8)])
@pytest.mark.parametrize("transport", [False, True])
def test_puzzlemix_on_any_size(transport, h, w, blocks):
    x = torch.zeros(4, 4, h, w)
    x[range(4), range(4)] = 1
    pair = torch.tensor([1, 2, 3, 0])
    mixed = puzzlemix.mix(x, torch.eye(4), draw(4, 1, h, w) + 0.1, pair, 0.4, blocks, transport)
    assert_close(mixed.x.mean((2, 3)), mixed.y)
    assert_close(mixed.share, mixed.mask.mean((1, 2, 3)))


# Co-Mixup

@pytest.mark.parametrize("h, w, count", [(2, 3, 4), (3, 2, 4), (3, 3, 3), (1, 5, 4), (5, 1, 4),
                                         (2, 2, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_elimination_is_the_best_of_all_labellings(h, w, count, seed):
    g = np.random.default_rng(seed)
    cost, apart, weight = g.normal(size=(h, w, count)), 1 - np.eye(count), 1.5 * g.random()
    apart[count - 1, :2] = apart[:2, count - 1] = 0.25
    terms = torch.from_numpy(cost)[None], torch.from_numpy(apart)[None], weight
    found = grid_labelling.minimise(*terms, torch.tensor([True]))
    value = oracles.potts_energy(found[0].numpy(), cost, apart, weight)
    every = [oracles.potts_energy(z, cost, apart, weight) for z in oracles.grids(h, w, count)]
    assert value == pytest.approx(min(every))
    assert grid_labelling.energy(found, *terms)[0].item() == pytest.approx(value)


def test_the_gpu_solvers_are_exact():
    """Both kernels, run by Triton's interpreter in a process of its own: the same labels as on the
    host."""
    code = """if True:
        import torch
        from sagelib.solvers import grid_labelling, grid_labelling_triton, min_cut, min_cut_triton
        g = torch.Generator().manual_seed(0)
        for h, w in [(1, 1), (1, 5), (2, 2), (5, 3), (8, 8), (16, 16)]:
            sizes = torch.tensor([0.05, 1, 10])[:, None, None, None]
            unary = torch.rand(3, 3, h, w, generator=g) * sizes
            down, right = torch.rand(3, h - 1, w, generator=g), torch.rand(3, h, w - 1, generator=g)
            unary[1, :, 0, 0] = 0.5
            assert min_cut_triton.fits(unary)
            assert torch.equal(min_cut_triton.min_cut(unary, down, right),
                               min_cut.min_cut(unary, down, right))
        for h, w, count, weight in [(1, 1, 3, 1.), (3, 2, 5, 1.), (4, 4, 6, 3.), (4, 4, 23, 0.5),
                                    (2, 3, 5, 0.2)]:
            cost = torch.randn(3, h, w, count, generator=g).double()
            apart = 1 - torch.eye(count).double().repeat(3, 1, 1)
            apart[1:, count - 1, :2] = apart[1:, :2, count - 1] = 0.25
            terms = cost, apart, weight, torch.tensor([True, False, True])
            assert grid_labelling_triton.fits(cost)
            assert torch.equal(grid_labelling_triton.minimise(*terms),
                               grid_labelling.minimise(*terms))
        print("equal")
    """
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"},
                          text=True, capture_output=True)
    assert done.stdout == "equal\n", done.stderr


def test_swap_moves_are_those_of_gco(vectors):
    """Also where several cuts cost the same."""
    v = vectors("swap_moves")
    sizes = set()
    for k in range(21):
        *terms, labels = (v[f"{k}_{name}"][None].long()
                          for name in ("cost", "apart", "down", "right", "labels"))
        assert torch.equal(swap_moves.swap_moves(*terms), labels)
        sizes.add(tuple(terms[0].shape[1:]))
    assert len(sizes) > 5 and (16, 16, 3) in sizes


@pytest.mark.parametrize("seed", range(3))
def test_no_swap_of_two_labels_is_better_than_swap_moves(seed):
    """All assignments of each pair of labels to the sites that have one of them, tried."""
    g = torch.Generator().manual_seed(seed)
    cost, apart = torch.randint(0, 50, (1, 2, 3, 4), generator=g), 10 * (1 - torch.eye(4).long())
    down, right = (torch.randint(0, 5, (1, *size), generator=g) for size in ((1, 3), (2, 2)))
    terms = cost[0], apart, down[0], right[0]
    labels = swap_moves.swap_moves(cost, apart[None], down, right)[0]
    value, better = oracles.grid_energy(labels, *terms), []
    for a, b in itertools.combinations(range(4), 2):
        sites = ((labels == a) | (labels == b)).nonzero().tolist()
        for choice in itertools.product((a, b), repeat=len(sites)):
            other = labels.clone()
            for (i, j), label in zip(sites, choice, strict=True):
                other[i, j] = label
            better.append(oracles.grid_energy(other, *terms) < value)
    assert len(better) > 20 and not any(better)


def test_baselines_with_the_authors_solver(images):
    """Options of both methods and their drop-ins; a record of the default does not name it."""
    x, y = images[0], one_hot(images[1], 10)
    s = draw(6, 1, 14, 18) + 0.1
    for kind, drop_in in ((puzzlemix.PuzzleMix, PuzzleMix), (comixup.CoMixup, CoMixup)):
        exact, swap = (kind(solver=solver).seed(0) for solver in ("exact", "swap"))
        assert "solver" not in exact.options() and swap.options()["solver"] == "swap"
        mixed = swap.mix_with_saliency(x, y, s)
        assert_close(mixed.y.sum(1), torch.ones(6))
        assert exact.mix_with_saliency(x, y, s).x.shape == mixed.x.shape
        assert drop_in(10, solver="swap").method.solver == "swap"
        with pytest.raises(ValueError, match="solver is 'expansion'; it must be one of 'exact', "):
            kind(solver="expansion")


@pytest.mark.parametrize("solver, wanted", [("exact", 36), ("swap", 46)])
def test_comixup_steps_are_the_authors_or_better(solver, wanted, vectors, monkeypatch):
    """From each state their run passed through, the next labelling: the same as theirs, or of lower
    energy. In ten of 46 their swap moves stopped at a local optimum."""
    v = {k: t.double() if t.is_floating_point() else t.long()
         for k, t in vectors("comixup").items()}
    seen, same = [], 0
    for name in ("minimise", "labels_by_swaps"):
        solve = getattr(assignment, name)
        monkeypatch.setattr(assignment, name, lambda *terms, solve=solve:
                            seen.append(terms) or solve(*terms))
    for p in range(3):
        n = len(v[f"{p}_dirichlet"])
        cost = (
            v[f"{p}_cost_no_prior"] - 0.05 / 16 * (v[f"{p}_dirichlet"] + 1e-8).log()[:, None, None])
        alike, one, repel = v[f"{p}_A"], torch.eye(n).double(), torch.zeros(n, n)
        z = one[v[f"{p}_init_labels"]]
        for sweep, theirs in enumerate(v[f"{p}_shares"] / 2):
            for i in range(n):
                others = z.sum((0, 1, 2)) - z[i].sum((0, 1))
                linear = (2 * assignment.penalty(alike[None], others[None], 0.83 * 16)[0] +
                          repel[i]) / 16
                seen.clear()
                ours = assignment.relabel((cost + linear[:, None, None])[None], z[i][None], 0.02,
                                          sweep > 0, torch.tensor([True]), solver)[0]
                (every, apart, weight, *_), = seen
                shares = torch.cat([one, (apart[0, n:, :n] == 0.25).double() / 2])
                decoded, found = ((a[:, :, None] - shares).abs().sum(3).argmin(2)
                                  for a in (theirs[i], ours))
                assert torch.equal(shares[decoded], theirs[i])
                gain = (grid_labelling.energy(decoded[None], every, apart, weight)
                        - grid_labelling.energy(found[None], every, apart, weight))
                assert gain >= -1e-9
                same += torch.equal(ours, theirs[i])
                z[i] = theirs[i]
            if sweep == 2:
                repel = assignment.distinctness_penalty(z[None])[0]
        assert torch.equal(repel, v[f"{p}_add_cost"])
    assert same == wanted


def test_comixup_shows_what_it_says_and_keeps_partitions_apart():
    x = torch.zeros(8, 8, 9, 14)
    x[range(8), range(8)] = 1
    g = torch.Generator().manual_seed(1)
    s, prior = draw(8, 1, 9, 14), torch._sample_dirichlet(torch.full((2, 4), 2.0), generator=g)
    start = torch.randint(4, (2, 4, 4, 4), generator=g)
    far = torch.stack([comixup.distances(s[:4]), comixup.distances(s[4:])])
    mixed = comixup.mix(x, torch.eye(8), s, prior, start, far)
    assert_close(mixed.x.mean((2, 3)), mixed.y)
    assert not mixed.y[:4, 4:].any() and not mixed.y[4:, :4].any()
    for p, part in enumerate((slice(0, 4), slice(4, 8))):
        alone = comixup.mix(x[part], torch.eye(8)[part], s[part], prior[p], start[p], far[p])
        assert_close(alone.x, mixed.x[part])
        assert_close(alone.y, mixed.y[part])


def test_comixup_objective_is_its_definition():
    g = np.random.default_rng(3)
    z, cost = np.eye(3)[g.integers(0, 3, (3, 4, 4))], g.normal(size=(3, 4, 4))
    found = assignment.objective(torch.from_numpy(z)[None], torch.from_numpy(cost)[None], 0.02,
                                 0.0625)
    assert found.item() == pytest.approx(oracles.comixup_objective(z, cost, 0.02, 0.0625))


def test_comixup_distances_are_between_the_most_salient_regions():
    s = torch.zeros(3, 1, 32, 32)
    s[0, 0, 3:11, 20:28] = s[1, 0, 13:21, 2:10] = s[2, 0, 3:11, 20:28] = 1
    assert comixup.distances(s).tolist() == [[0, 28, 0], [28, 0, 28], [0, 28, 0]]


# from outside the paper's tables

def test_guidedmixup_pairs_along_the_greedy_cycle_and_shares_by_saliency():
    s, x, y = draw(6, 1, 5, 7) ** 4, draw(6, 3, 5, 7, seed=1), labels(6)
    flat = normalise(s).flatten(1).double()
    want = oracles.greedy_cycle((flat[:, None] - flat[None]).norm(dim=2).numpy())
    pair = guidedmixup.pairing(s)
    assert pair.tolist() == want
    mixed = guidedmixup.mix(x, y, s, pair)
    for n in range(6):
        m = oracles.mask(*(flat[k].reshape(5, 7) for k in (n, want[n]))).float()
        assert_close(mixed.x[n], m * x[n] + (1 - m) * x[want[n]])
        assert_close(mixed.y[n], m.mean() * y[n] + (1 - m.mean()) * y[want[n]])


def test_spectral_residual_finds_the_odd_one_out():
    x = torch.sin(torch.arange(32) * 1.2).expand(1, 3, 32, 32).clone()
    x[:, :, 20:23, 9:12] = 3
    peak = guidedmixup.smooth(guidedmixup.spectral_residual(x), 3.0,
                              radius=3).flatten().argmax().item()
    assert abs(peak // 32 - 21) <= 3 and abs(peak % 32 - 10) <= 3
    assert guidedmixup.spectral_residual(draw(2, 3, 200, 160)).shape == (2, 1, 200, 160)


@pytest.mark.parametrize("cells, h, w", [(2, 8, 12), (4, 8, 12), (1, 5, 7), (4, 9, 13), (9, 5, 7)])
def test_rmix_is_the_loop_over_images_cells_and_pixels(cells, h, w):
    s, x, y = draw(6, 1, h, w), draw(6, 3, h, w, seed=1), labels(6)
    pair, lam, threshold = torch.tensor([3, 1, 0, 4, 5, 2]), 0.3, draw(6, seed=2)
    mixed = rmix.mix(x, y, s, pair, lam, threshold, cells)
    shown = set()
    for n, k in enumerate(pair.tolist()):
        own, other = (oracles.top_cells(s[i, 0].double(), threshold[i].item(), cells)
                      for i in (n, k))
        area = 0.0
        for a, b in itertools.product(range(h), range(w)):
            weight = lam if own[a, b] == other[a, b] else own[a, b].item()
            assert_close(mixed.x[n, :, a, b], weight * x[n, :, a, b] + (1 - weight) * x[k, :, a, b])
            area += weight / (h * w)
            shown.add(weight)
        assert_close(mixed.y[n], area * y[n] + (1 - area) * y[k])
        assert mixed.share[n].item() == pytest.approx(area)
    assert shown == ({0.3} if cells == 1 else {0.0, 0.3, 1.0})


def test_rmix_has_fewer_top_cells_the_higher_the_percentile():
    s = torch.arange(16.0).reshape(1, 1, 4, 4).expand(4, -1, -1, -1)
    top = rmix.top_cells(s, torch.tensor([0.0, 0.5, 0.999, 1.0]), 4)
    assert top.sum((1, 2, 3)).tolist() == [15, 8, 1, 0]
    assert top[1].flatten().nonzero().flatten().tolist() == list(range(8, 16))  # the largest
    assert torch.equal(rmix.top_cells(7 * s, 0.5, 4), rmix.top_cells(s, 0.5, 4))  # of any scale
    assert not rmix.top_cells(torch.zeros(2, 1, 4, 4), 0.0, 2).any()


def test_rmix_of_maps_without_a_top_is_mixup():
    x, y, pair, lam = draw(5, 3, 8, 12), labels(5), torch.tensor([3, 1, 0, 4, 2]), draw(5, seed=3)
    for s, threshold in ((torch.zeros(5, 1, 8, 12), 0.0), (draw(5, 1, 8, 12), 1.0),
                         (torch.full((5, 1, 8, 12), torch.nan), 0.5)):
        found, want = rmix.mix(x, y, s, pair, lam, threshold), mixup.mix(x, y, pair, lam)
        assert_close((found.x, found.y), (want.x, want.y))


def test_rmix_draws_a_percentile_for_each_image_and_a_grid_for_the_batch():
    x, y, s, seen = draw(4, 3, 16, 16), labels(4), draw(4, 1, 16, 16), []
    for seed in range(60):
        found = rmix.RMix().seed(seed).mix_with_saliency(x, y, s)
        twin = rmix.RMix().seed(seed)
        pair, lam = twin.draw_permutation(4, "cpu"), twin.draw_beta(1.0, "cpu")
        threshold = twin.draw_uniform(0, 1, "cpu", 4)
        cells = rmix.GRIDS[twin.draw_integers(2, "cpu", 1).item()]
        assert_close(found.x, rmix.mix(x, y, s, pair, lam, threshold, cells).x)
        seen.append(cells)
    assert 15 < seen.count(2) < 45  # 30 expected, 4 standard deviations
    one = rmix.RMix(cells=8).seed(0).mix_with_saliency(x, y, s)
    twin = rmix.RMix(cells=8).seed(0)
    given = twin.draw_permutation(4, "cpu"), twin.draw_beta(1.0, "cpu")
    assert_close(one.x, rmix.mix(x, y, s, *given, twin.draw_uniform(0, 1, "cpu", 4), 8).x)


def test_cutout_paints_its_square_with_the_mean_colour():
    x, y = draw(2, 3, 8, 12) + 1, labels(2)
    box = cutout.square(torch.tensor([[0, 6], [7, 0]]), 8, 12, 0.5)
    assert box.tolist() == [[-2, 3, 2, 9], [5, -3, 9, 3]]
    mixed = cutout.mix(x, y, box)
    assert torch.equal(mixed.x, oracles.pasted(x, torch.zeros_like(x), box.tolist()))
    assert torch.equal(mixed.y, y)


@pytest.mark.parametrize("salient", [False, True])
def test_keepaugment_cuts_no_salient_square_or_pastes_one(salient):
    s = torch.zeros(200, 1, 8, 8)
    s[:, :, 2:6, 2:6] = 1
    worth = torch.nn.functional.avg_pool2d(s, 4, 1)[0, 0]
    limit = worth.flatten().quantile(0.6)
    boxes = keepaugment.boxes(s, 0.5, 0.6, draw(200, 25), salient)
    allowed = worth >= limit if salient else worth <= limit
    assert {tuple(b[:2]) for b in boxes.tolist()} == set(map(tuple, allowed.nonzero().tolist()))


def test_keepaugment_pastes_its_square():
    x, changed, box = draw(1, 3, 8, 8), draw(1, 3, 8, 8, seed=1), torch.tensor([[1, 2, 5, 6]])
    pasted = keepaugment.mix(x, labels(1), box, changed).x
    assert torch.equal(pasted, oracles.pasted(changed, x, box.tolist()))


def test_randaugment_is_torchvisions_and_leaves_the_global_generator_alone():
    from torchvision.transforms import RandAugment
    levels = (draw(4, 3, 12, 10) * 255).byte()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    m, d = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    before = torch.get_rng_state()
    mixed = randaugment.mix((levels / 255 - m) / d, labels(4), 5, 2, 12, mean, std)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    want = torch.stack([RandAugment(2, 12)(image) for image in levels])
    torch.set_rng_state(before)
    assert_close(mixed.x * d + m, want / 255, rtol=0, atol=1e-5)
    assert torch.equal(mixed.y, labels(4))


@pytest.mark.parametrize("name, options", [("keepaugment", {"keep": "paste"}),
                                           ("guidedmixup", {"source": "gradient"}),
                                           ("rmix", {"cells": 5}),
                                           ("saliencymix", {"published": True}),
                                           ("puzzlemix", {"transport": False}),
                                           ("saliencymix", {"detector": "opencv"})])
def test_a_step_with_an_option_that_is_not_the_default_has_a_finite_loss(name, options, tiny):
    method = catalog.load(methods, name, **options).seed(0)
    assert train_step(method, tiny(), draw(3, 3, 8, 12), labels(3)).isfinite()


@pytest.mark.parametrize("constants", [([0.4], [0.2]),
                                       (torch.full((1, 3, 1, 1), 0.4), np.full(3, 0.2)),
                                       (0.4, 0.2)])
def test_mean_and_standard_deviation_may_have_any_form(constants):
    x, s, pair = draw(3, 3, 8, 8), draw(3, 1, 8, 8), torch.tensor([1, 2, 0])
    want = puzzlemix.mix(x, labels(3), s, pair, 0.5, 2, True, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    assert_close(puzzlemix.mix(x, labels(3), s, pair, 0.5, 2, True, *constants).x, want.x)


@pytest.mark.parametrize("name", catalog.names(methods))
def test_every_method_trains_a_real_network_on_one_odd_image(name):
    """A last batch of one image, not square, two classes, under bfloat16."""
    net = catalog.load(models, network_for(name), classes=2, width=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_step(
            catalog.load(methods, name).seed(0), net, draw(1, 3, 20, 28), labels(1, 2))
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", catalog.names(methods))
def test_every_method_on_dead_saliency_and_a_constant_image(name, tiny):
    net = tiny()
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    x, y = torch.ones(5, 3, 16, 16), labels(5)
    mixed = catalog.load(methods, name).seed(0).mix(x, y, net)
    assert mixed.x.isfinite().all() and mixed.y.isfinite().all()
    assert_close(mixed.y.sum(1), torch.ones(5))
