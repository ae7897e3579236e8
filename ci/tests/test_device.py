"""On a device without float64 that is no NVIDIA GPU, as a Mac's is: the same values as on the
CPU."""
import contextlib
import math
import random

import pytest
import torch
from devices import FAR, Reads, far_device
from mixers import every
from steps import train_step
from torch.testing import assert_close

from sagelib import SaliencyMix, catalog, evaluate, methods, models, search
from sagelib.data.batches import Batches
from sagelib.evaluate import calibration, corruptions, fewshot, robustness
from sagelib.losses import one_hot
from sagelib.methods import keepaugment, saliencymix
from sagelib.rearrange import best_offset, offsets, total_saliency
from sagelib.saliency import normalise, smooth
from sagelib.train import Recipe, Run, fit, fit_together

OPTIONS = {
    "comixup": ({"partition": 4}, {"solver": "swap"}), "guidedmixup": ({"source": "gradient"},),
    "keepaugment": ({"keep": "paste"},),
    "puzzlemix": ({"per_image": True}, {"transport": False}, {"solver": "swap"}),
    "rmix": ({"per_image": True}, {"cells": 4}),
    "sage": ({"per_image": True}, {"fraction": 1.0}, {"bn": "batch"}),
    "sage_controls": ({"searched": False}, {"maps": "other"}, {"gradient_of": "score"},
                      {"mixing": "rounded"}, {"mixing": "box"}, {"mixing": "uniform"},
                      {"mixing": "box", "per_image": True}),
    "saliencymix": ({"prob": 1.0}, {"prob": 1.0, "per_image": True},
                    {"prob": 1.0, "published": True}, {"prob": 1.0, "detector": "opencv"}),
}
CASES = [(name, options)
         for name in catalog.names(methods)
         for options in ({}, *OPTIONS.get(name, ()))]


@pytest.mark.parametrize("wrong", [
    lambda x: x.double(), lambda x: torch.zeros(3, dtype=torch.float64, device=FAR),
    lambda x: x.sum(dtype=torch.float64), lambda x: torch.randn(3).double().to(FAR)],
    ids=["double", "zeros", "sum", "to"])
def test_the_device_refuses_float64(wrong):
    with far_device(), pytest.raises(TypeError, match=r"the device has no torch\.float64"):
        wrong(torch.randn(3, 4).to(FAR))


def test_the_device_refuses_tensors_of_another():
    with far_device():
        x = torch.randn(3, 4).to(FAR)
        assert x.device == FAR and not x.is_cpu and (x + 1).device == FAR and x.cpu().is_cpu
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            x + torch.zeros(4)


@pytest.mark.parametrize("name, options", CASES,
                         ids=[f"{name} {options}" for name, options in CASES])
def test_every_methods_step_is_that_of_the_cpu(name, options, tiny, images):
    x, y = images[0], one_hot(images[1], 10)
    near, far = tiny(), tiny()
    with far_device():
        far.to(FAR)
        one = train_step(catalog.load(methods, name, **options).seed(1), near, x, y)
        two = train_step(catalog.load(methods, name, **options).seed(1), far, x.to(FAR), y.to(FAR))
        assert two.device == FAR
        assert_close(two.cpu(), one)
        for p, q in zip(far.parameters(), near.parameters(), strict=True):
            assert_close(p.grad.cpu(), q.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["transmix", "sage_attention", "sage"])
def test_a_transformers_step_is_that_of_the_cpu(name):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 3, 16, 24, generator=g), torch.eye(4)
    found = []
    for device in ("cpu", FAR):
        with far_device():
            torch.manual_seed(0)
            net = catalog.load(models, "vit_tiny", classes=4, width=2).to(device)
            method = catalog.load(methods, name).seed(1)
            loss = train_step(method, net, x.to(device), y.to(device))
            found.append([loss.cpu(), *(p.grad.cpu() for p in net.parameters())])
    assert_close(*found, rtol=1e-4, atol=1e-6)


@every
def test_every_mixers_loss_is_that_of_the_cpu(kind, tiny, images):
    losses = []
    for device in ("cpu", FAR):
        with far_device():
            net = tiny().to(device)
            mix = kind(10, **({"prob": 1.0} if kind is SaliencyMix else {})).bind(net)
            mix.method.cpu_rng = random.Random(0)
            torch.manual_seed(0)
            loss = mix.loss(images[0].to(device), images[1].to(device))
            loss.backward()
            losses.append(loss.detach().cpu())
    assert_close(*losses)


def test_the_search_is_equation_4_there_too():
    g = torch.Generator().manual_seed(0)
    a, b = (normalise(smooth(torch.rand(3, 1, 9, 12, generator=g) ** 8)) for _ in range(2))
    a[0, 0, :4], b[1, 0, 3:] = 0, 0
    each = torch.randint(-12, 13, (3, 30, 2), generator=g)
    for tau in (offsets(9, 12), each):
        exact = search.gather(a[:, 0].double(), b[:, 0].double(), tau)
        with far_device():
            found = total_saliency(a.to(FAR), b.to(FAR), tau.to(FAR))
            best = best_offset(a.to(FAR), b.to(FAR), tau.to(FAR))
            assert found.device == FAR == best.device
            found, best = found.cpu(), best.cpu()
        assert_close(found.double(), exact, rtol=1e-6, atol=0)
        assert torch.equal(best, best_offset(a, b, tau))


def test_training_and_every_evaluation_are_those_of_the_cpu(shapes, tiny):
    train, test = shapes
    logits = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    few, found = fewshot.Episodes(ways=3, shots=1, queries=1, episodes=20), []
    for device in ("cpu", FAR):
        with far_device():
            net, data = tiny().to(device), test.to(device)
            fit(net, Batches(train.to(device), 16, generator=torch.Generator().manual_seed(0)),
                catalog.load(methods, "sage").seed(0), Recipe(epochs=1))
            features = fewshot.features(net, data)
            found.append([
                evaluate.scores(net, Batches(data, 7)), robustness.evaluate(net, data),
                robustness.evaluate_pgd(net, data, steps=2, norm="l2"),
                calibration.scores(logits.to(device), data.labels),
                *(fewshot.evaluate(features, data.labels, few, kind) for kind in fewshot.DISTANCES)
            ])
    assert found[0] == found[1]


def test_an_evaluation_reads_two_numbers_however_many_batches_it_has(shapes, tiny):
    for size, count in ((3, 10), (30, 1)):
        with far_device():
            net, batches = tiny().to(FAR), Batches(shapes[1].to(FAR), size)
            assert len(batches) == count
            with Reads() as reads:
                evaluate.scores(net, batches)
            assert (reads.numbers, reads.tensors) == (2, 0)
            with Reads() as reads:
                evaluate.correct(net, batches)
            assert (reads.numbers, reads.tensors) == (0, 1)


@pytest.mark.parametrize("size", [10, 40])
def test_between_epochs_nothing_is_read_but_losses_scores_and_the_checkpoint(
        size, shapes, tiny, tmp_path):
    """The losses of an epoch at once, two numbers of the test; weights only into the checkpoint."""
    with far_device():
        train, test = (part.to(FAR) for part in shapes)
        for file in (None, tmp_path / "c.pt"):
            run = Run(tiny().to(FAR), Batches(train, size, generator=torch.Generator()),
                      catalog.load(methods, "sage").seed(0), Recipe(epochs=2), file,
                      select="test_accuracy")
            with Reads() as reads:
                fit_together([run], Batches(test, 7))
            state = [*run.net.state_dict().values(), *run.best.values(),
                     *(v["momentum_buffer"] for v in run.optimizer.state_dict()["state"].values())]
            assert {v.device for v in state} == {FAR}
            each = 1 + (len(state) if file else 0)
            assert (reads.numbers, reads.tensors) == (2 * 2, 2 * each)


@pytest.mark.parametrize("first, second", [("cpu", FAR), (FAR, "cpu"), (FAR, FAR)])
def test_a_run_goes_on_on_another_device(first, second, shapes, tiny, tmp_path):
    """The checkpoint holds plain tensors of the CPU."""
    def trained(device, file, stop_after=9):
        def on_epoch(curves):
            if len(curves[0]) == stop_after:
                raise InterruptedError

        with far_device(), contextlib.suppress(InterruptedError):
            data = shapes[0].to(device)
            run = Run(tiny().to(device), Batches(data, 16, generator=torch.Generator()),
                      catalog.load(methods, "sage_merged").seed(0), Recipe(epochs=2),
                      tmp_path / file, select="train_loss")
            fit_together([run], on_epoch=on_epoch)
        return torch.load(tmp_path / file, weights_only=True)

    whole, half = trained("cpu", "whole.pt"), trained(first, "c.pt", stop_after=1)
    assert len(half["curve"]) == 1 and half["method"]["waiting"][0].is_cpu
    for state in (half, trained(second, "c.pt")):
        for part in ("net", "best"):
            assert all(type(v) is torch.Tensor and v.is_cpu for v in state[part].values())
    assert len(state["curve"]) == 2
    for part in ("net", "best"):
        for name, value in whole[part].items():
            assert_close(state[part][name], value)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_every_corruption_is_that_of_the_cpu(name, shapes):
    images, made = shapes[1].images[:4], []
    for device in ("cpu", FAR):
        with far_device():
            torch.manual_seed(0)
            made.append(corruptions.corrupt(images.to(device), name, 3, None).cpu())
    assert torch.equal(*made)


# what float64 did, without it


def test_a_product_and_a_sum_are_rounded_once():
    """As in float64, also where the sum nearly cancels; OpenCV's own bytes are compared in
    test_baselines.py."""
    g = torch.Generator().manual_seed(0)
    x, near = torch.randn(2, 300_000, generator=g)
    for z in (near, near * 1e-4, -x * 0.114 + near * 1e-7):
        for weight in (0.114, 0.299):
            exact = (x.double() * torch.full((), weight).double() + z.double()).float()
            assert torch.equal(saliencymix.multiply_add(x, weight, z), exact)
    assert not torch.equal(x * 0.114 + z, (x.double() * torch.full(
        (), 0.114).double() + z.double()).float())


def test_boxes_in_float32_are_those_in_float64_but_for_rounding():
    g, s = torch.Generator().manual_seed(0), torch.rand(1, 84, 84)
    s[0, 42, 42] = 2
    lam = torch.rand(2000, generator=g)
    exact = [(1 - v).sqrt().item() * 84 for v in lam.double()]
    found = saliencymix.box(s.expand(2000, -1, -1), lam)
    for side, (top, _, bottom, _) in zip(exact, found.tolist(), strict=True):
        if abs(side - round(side)) > 2e-7 * 84:
            half = int(side) // 2
            assert (top, bottom) == (max(42 - half, 0), min(42 + half, 84))
    assert sum(abs(side - round(side)) > 2e-7 * 84 for side in exact) > 1990
    for value in (0.36, 0.19, 1.0, 0.0):  # a number counts exactly
        half = int(math.sqrt(1 - value) * 84) // 2
        assert saliencymix.box(s, value)[0].tolist()[0] == max(42 - half, 0)


@pytest.mark.parametrize("q", [0.0, 0.37, 0.5, 0.6, 1.0])
def test_the_quantile_is_torchs(q):
    z = torch.rand(50, 25, generator=torch.Generator().manual_seed(0))
    z[:, ::3] = z[:, 1:2]
    assert_close(keepaugment._quantile(z, q), z.double().quantile(q, 1, keepdim=True).float())
