"""Draws for each image, `per_image=True`, against the same images mixed one by one."""
import pytest
import torch
from torch.testing import assert_close

from sagelib import catalog, methods
from sagelib.losses import one_hot
from sagelib.methods import mixup, puzzlemix, rmix, sage
from sagelib.rearrange import best_offset, offsets, total_saliency
from sagelib.saliency import smooth


def test_shifts_for_each_image_are_searched_as_one_by_one():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 7, 1, 9, 12, generator=g)
    a[0, 0, :4], b[1, 0, 3:] = 0, 0
    tau = torch.randint(-12, 13, (7, 30, 2), generator=g)
    found, best = total_saliency(a, b, tau), best_offset(a, b, tau)
    for i in range(7):
        one = a[i:i + 1], b[i:i + 1], tau[i]
        assert_close(found[i], total_saliency(*one)[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(best[i], best_offset(*one)[0])


@pytest.mark.parametrize("wrong", [torch.zeros(6, 30, 2).long(), torch.zeros(1, 7, 30, 2).long(),
                                   torch.zeros(7, 0, 2).long(), torch.zeros(7, 30, 2)],
                         ids=["too few", "four axes", "none", "floats"])
def test_wrong_shifts_are_one_clear_error(wrong):
    a = torch.rand(7, 1, 9, 12)
    with pytest.raises(ValueError, match=r"\(N, 2\) or \(7, N, 2\)"):
        total_saliency(a, a, wrong)


def test_sage_has_a_lambda_and_shifts_for_each_image(images):
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
                         ["mixup", "cutmix", "saliencymix", "puzzlemix", "manifold_mixup", "rmix",
                          "sage"])
@pytest.mark.parametrize("per_image", [False, True])
def test_labels_have_the_share_of_the_image_or_the_batch(name, per_image, tiny):
    options = {"prob": 1.0} if name == "saliencymix" else {}
    method = catalog.load(methods, name, per_image=per_image, **options).seed(1)
    mixed = method.mix(torch.randn(40, 3, 16, 16), torch.eye(40), tiny(classes=40))
    assert_close(mixed.y.sum(1), torch.ones(40))
    for i, j in enumerate(mixed.pair.tolist()):
        assert_close(mixed.y[i, i], mixed.share[i] if i != j else torch.tensor(1.0))
    if name in ("mixup", "cutmix", "manifold_mixup"):
        assert (len(mixed.share.unique()) > 10) == per_image


def test_mixup_with_a_lambda_for_each_image_is_the_loop():
    x, y, pair, lam = torch.randn(40, 3, 16, 16), torch.eye(40), torch.randperm(40), torch.rand(40)
    together = mixup.mix(x, y, pair, lam)
    for i, j in enumerate(pair.tolist()):
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


@pytest.mark.parametrize("per_image", [False, True])
def test_rmix_blends_by_a_lambda_for_each_image_or_for_the_batch(per_image):
    x, s = torch.rand(20, 3, 16, 16), torch.rand(20, 1, 16, 16)
    found = rmix.RMix(per_image=per_image).seed(0).mix_with_saliency(x, torch.eye(20), s)
    blended = [set(m.unique().tolist()) - {0.0, 1.0} for m in found.mask]
    assert all(len(values) <= 1 for values in blended)
    assert (len(set.union(*blended)) > 10) == per_image and set.union(*blended)


def test_rmix_with_draws_for_each_image_is_one_by_one():
    x, y, s = torch.rand(5, 3, 16, 16), torch.eye(5), torch.rand(5, 1, 16, 16)
    pair, lam, threshold = torch.tensor([1, 2, 3, 4, 0]), torch.rand(5), torch.rand(5)
    found = rmix.mix(x, y, s, pair, lam, threshold, 4)
    for i, j in enumerate(pair.tolist()):
        alone = rmix.mix(x[[i, j]], y[[i, j]], s[[i, j]], torch.tensor([1, 0]), lam[i],
                         threshold[[i, j]], 4)
        assert_close(found.x[i], alone.x[0])
        assert_close(found.y[i], alone.y[0])
