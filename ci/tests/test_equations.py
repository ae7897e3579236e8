"""Equations 1 to 4 against loops, on images that are not square; and what zero, NaN and infinity
do."""
import os
import subprocess
import sys

import oracles
import pytest
import torch
from torch.testing import assert_close

from sagelib import search
from sagelib.mask import mask
from sagelib.rearrange import best_offset, offsets, shift, total_saliency
from sagelib.saliency import normalise, saliency, smooth

H, W = 5, 8


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(3)
    a, b = (torch.rand(4, 1, H, W, generator=g) ** 3 for _ in range(2))
    a[0, :, :2], b[0, :, 1:3], b[1, :, :, 4:] = 0, 0, 0  # exact zeros, some in both
    return a, b


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_saliency_is_the_norm_over_the_channels(norm):
    grad = torch.randn(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    assert_close(saliency(grad, norm), oracles.saliency(grad, norm))
    assert saliency(grad.half(), norm).dtype == torch.float32
    assert saliency(grad.double(), norm).dtype == torch.float64


@pytest.mark.parametrize("sigma, radius", [(1.0, 2), (0.5, 1), (1.7, 4)])
@pytest.mark.parametrize("h, w", [(H, W), (1, 7), (2, 3)])
def test_smooth_is_a_gaussian_with_a_mirrored_border(sigma, radius, h, w):
    s = torch.rand(1, 1, h, w, generator=torch.Generator().manual_seed(1))
    assert_close(smooth(s, sigma)[0, 0], oracles.blur(s[0, 0], sigma, radius))


def test_smooth_by_nothing_changes_nothing_and_keeps_a_flat_map():
    s = torch.rand(2, 1, H, W)
    assert_close(smooth(s, 0), s, rtol=0, atol=0)
    assert_close(smooth(torch.full((1, 1, H, W), 0.3)), torch.full((1, 1, H, W), 0.3))


def test_normalise_sums_to_one():
    s = torch.rand(3, 1, H, W) * torch.tensor([1e-30, 1.0, 1e30])[:, None, None, None]
    assert_close(normalise(s).sum((1, 2, 3)), torch.ones(3))
    assert_close(normalise(s[1:2]), s[1:2] / s[1:2].sum())


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf"), -1.0])
def test_a_map_without_meaning_becomes_uniform(bad):
    s = torch.rand(3, 1, H, W)
    s[1] = bad
    out = normalise(s)
    assert_close(out[1], torch.full((1, H, W), 1 / (H * W)))
    assert_close(out[0], s[0] / s[0].sum())


def test_one_bad_pixel_spoils_no_other_map():
    s = torch.rand(2, 1, H, W)
    clean = normalise(smooth(s))[0]
    s[1, 0, 2, 2] = float("nan")
    assert_close(normalise(smooth(s))[0], clean)
    assert normalise(smooth(s)).isfinite().all()


def test_mask_is_the_share_and_zero_where_both_are_zero(maps):
    a, b = maps
    for n in range(len(a)):
        assert_close(mask(a, b)[n, 0], oracles.mask(a[n, 0], b[n, 0]))
    assert mask(a, b)[0, 0, 1].eq(0).all()
    assert mask(torch.tensor([1e-45]), torch.tensor([0.0])) == 1


def test_offsets_are_all_that_leave_a_pixel():
    tau = offsets(H, W)
    assert tau.shape == ((2 * H - 1) * (2 * W - 1), 2)
    assert len(set(map(tuple, tau.tolist()))) == len(tau)
    one = torch.ones(1, 1, H, W)
    assert all(shift(one, t).sum() > 0 for t in tau)
    assert shift(one, torch.tensor([H, 0])).sum() == 0


@pytest.mark.parametrize("t", [(0, 0), (2, -3), (-4, 7), (H, 0), (0, -W), (99, 99)])
def test_shift_moves_rows_then_columns(t):
    z = torch.rand(2, 3, H, W)
    assert_close(shift(z, torch.tensor(t))[1], oracles.shift(z[1], t), rtol=0, atol=0)


def test_each_image_may_have_its_own_shift():
    z, each = torch.rand(2, 3, H, W), torch.tensor([[1, 2], [-1, 0]])
    assert_close(shift(z, each),
                 torch.stack([oracles.shift(z[k], each[k].tolist()) for k in range(2)]))


def test_total_saliency_is_equation_4(maps):
    a, b = maps
    tau = offsets(H, W)
    v = total_saliency(a, b, tau)
    for n in range(len(a)):
        assert_close(v[n], oracles.total_saliency(a[n, 0], b[n, 0], tau), rtol=1e-5, atol=1e-5)


FORMS = [search.slices, search.table, search.gather]
SIZES = [(H, W), (1, 1), (1, 7), (9, 1), (12, 12)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("h, w", SIZES)
def test_every_form_of_the_search_is_equation_4(form, h, w, monkeypatch):
    g = torch.Generator().manual_seed(h * w)
    a, b = (torch.rand(3, h, w, generator=g) ** 3 for _ in range(2))
    a[0, :h // 2], b[0, :, :w // 2], b[2] = 0, 0, 0
    tau = torch.cat([offsets(h, w), torch.tensor([[h, 0], [0, -w], [99, 99], [-h - 3, 2]])])
    v = form(a, b, tau)
    for n in range(len(a)):
        slow = oracles.total_saliency(a[n].double(), b[n].double(), tau)
        assert_close(v[n].double(), slow, rtol=1e-6, atol=0)
    monkeypatch.setattr(search.cpu, "BLOCK", 1)
    assert_close(form(a, b, tau), v)
    assert_close(form(a.double(), b.double(), tau.flip(0)).flip(1), v.double(), rtol=1e-6, atol=0)


def test_the_form_of_the_search_follows_size_number_and_device():
    a, tau = torch.rand(2, 6, 4), offsets(6, 4)
    assert search.choose_backend(a, tau[:30]) is search.slices
    assert search.choose_backend(a, tau) is search.table
    assert search.choose_backend(a.to("meta"), tau) is search.gather


@pytest.mark.parametrize("share", [0.01, 1])
def test_the_search_at_the_papers_size_is_the_literal_one(share):
    """32 x 32, whole masks built as in Equation 4: the same shift, or a float64 gap under 1e-6."""
    g = torch.Generator().manual_seed(0)
    a, b = (normalise(smooth(torch.rand(6, 1, 32, 32, generator=g) ** 8)) for _ in range(2))
    tau = offsets(32, 32)
    tau = tau[torch.randperm(len(tau), generator=g)[:int(share * len(tau))]]
    a, b = 0.3 * a, 0.7 * b
    best = best_offset(a, b, tau)
    for n in range(len(a)):
        v = oracles.total_saliency_of_masks(a[n, 0].double(), b[n, 0].double(), tau)
        assert v.max() - v[(tau == best[n]).all(1)][0] < 1e-6 * v.max()


@pytest.mark.parametrize("form, h, w, count", [(search.slices, 224, 224, 12),
                                               (search.gather, 224, 224, 12),
                                               (search.slices, 224, 160, 12),
                                               (search.table, 84, 60, None)])
def test_large_images_are_searched_the_same(form, h, w, count):
    g = torch.Generator().manual_seed(7)
    a, b = (normalise(smooth(torch.rand(2, 1, h, w, generator=g) ** 20)) for _ in range(2))
    tau = offsets(h, w)
    some = torch.randperm(len(tau), generator=g)[:12]
    v = form(a[:, 0], b[:, 0], tau)[:, some] if count is None else form(a[:, 0], b[:, 0], tau[some])
    for n in range(2):
        slow = oracles.total_saliency_of_masks(a[n, 0].double(), b[n, 0].double(), tau[some])
        assert_close(v[n].double(), slow, rtol=1e-6, atol=0)


def test_the_gpu_kernels_are_equation_4():
    """The kernels themselves, run by Triton's interpreter in a process of its own."""
    code = """if True:
        import torch
        from sagelib.search import gather
        from sagelib.search.triton import search, some, table
        from sagelib.rearrange import offsets
        g = torch.Generator().manual_seed(0)
        for h, w in SIZES + [(40, 9), (3, 40)]:
            a, b = (torch.rand(2, h, w, generator=g) ** 3 for _ in range(2))
            a[0, :h // 2], b[0, :, :w // 2] = 0, 0
            tau = torch.cat([offsets(h, w), torch.tensor([[h, 0], [0, -w], [99, 99], [-h - 3, 2]])])
            tau = tau[torch.randperm(len(tau), generator=g)[:300]]
            slow = gather(a.double(), b.double(), tau)
            for form in (search, some, table):
                torch.testing.assert_close(form(a, b, tau).double(), slow, rtol=1e-6, atol=1e-12)
        print("equal")
    """.replace("SIZES", repr(SIZES))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"},
                          text=True, capture_output=True)
    assert done.stdout == "equal\n", done.stderr


def test_best_offset_is_the_argmax(maps):
    a, b = maps
    tau = offsets(H, W)
    best = best_offset(a, b, tau)
    for n in range(len(a)):
        values = oracles.total_saliency(a[n, 0].double(), b[n, 0].double(), tau)
        chosen = values[(tau == best[n]).all(1)][0]
        assert values.max() - chosen <= 1e-6 * values.max()


def test_of_equal_shifts_the_first_is_best(maps):
    tie = torch.tensor([[0, 3], [1, 1], [1, 1], [0, 3]])
    assert best_offset(maps[0] * 0, maps[1] * 0, tie).tolist() == [[0, 3]] * 4


CALLS = {"mask": mask, "shift": lambda a, b: shift(a, offsets(H, W)[3]),
         "total_saliency": lambda a, b: total_saliency(a, b, offsets(H, W)),
         "best_offset": lambda a, b: best_offset(a, b, offsets(H, W)),
         "normalise": lambda a, b: normalise(a), "smooth": lambda a, b: smooth(a)}


@pytest.mark.parametrize("call", CALLS)
def test_inputs_are_not_written_to(call, maps):
    a, b = maps
    before = a.clone(), b.clone()
    CALLS[call](a, b)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


def test_everything_is_float32_inside_autocast(maps):
    def found(a, b):
        return (smooth(saliency(a.expand(-1, 3, -1, -1))), total_saliency(a, b, offsets(H, W)),
                mask(a, b))

    plain = found(*maps)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(found(*maps), plain, rtol=0, atol=0)
