"""A training step never waits for the host: crop, two passes, blur, search, mix, loss and update,
for every method."""
import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sagelib import methods, models
from sagelib.catalog import load, names
from sagelib.data.batches import Batches
from sagelib.data.dataset import Dataset
from sagelib.train import Recipe
from sagelib.train.step import Run


class NothingCopied(TorchFunctionMode):
    """An error for a tensor made from numbers on the host."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.tensor, torch.as_tensor, torch.asarray):
            copied = (kwargs or {}).get("device") and not isinstance(args[0], torch.Tensor)
            assert not copied, f"{args[0]} is copied"
        return function(*args, **(kwargs or {}))


class NothingCrosses(TorchDispatchMode):
    """An error for every operation that reads one device and another: on a GPU it would wait, or
    break a graph."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        devices = {t.device for t in tensors}
        assert len(devices) <= 1, f"{function} crosses from one device to another"
        return out


def method_of(name, **options):
    """A method that draws with the global generator, since no other knows these devices."""
    method = load(methods, name, **options).seed(0)
    method.generator = None
    return method


def step(name, net, device, watches=(NothingCopied, NothingCrosses), **options):
    images = torch.zeros(40, 3, 16, 16, dtype=torch.uint8, device=device)
    data = Dataset(images, torch.zeros(40, dtype=torch.long, device=device), list("abcdefghij"),
                   (.5,) * 3, (.2,) * 3)
    batches = Batches(data, 8, generator=torch.Generator())
    # no generator exists on a device without data
    batches._draw = lambda kind, *args: kind(*args, device=device)
    run = Run(net, batches, method_of(name, **options), Recipe(epochs=1))
    with contextlib.ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch())
        run.begin(0)
        for k in range(2):
            run.advance(k)
    assert run.losses.shape == (5,) and run.losses.device.type == device


# PyTorch knows no shape rule for this one draw
SHAPES = torch.library.Library("aten", "IMPL", "Meta")
SHAPES.impl("_sample_dirichlet", lambda z, generator=None: torch.empty_like(z))


@pytest.mark.parametrize("name", names(methods))
def test_no_value_of_a_step_leaves_the_device(name, tiny):
    """On the meta device there are no values at all: what needs one, or copies one from the host,
    fails."""
    step(name, tiny().to("meta"), "meta")


@pytest.mark.parametrize("options",
                         [{}, {"fraction": 1}, {"reuse": 0}, {"guided": False}, {"bn": "eval"}])
def test_no_value_of_sages_step_leaves_the_device(options, tiny):
    step("sage", tiny().to("meta"), "meta", **options)


@pytest.mark.parametrize("options", [
    {"mixing": "rounded"}, {"mixing": "box"}, {"mixing": "box", "per_image": True},
    {"mixing": "uniform"}, {"gradient_of": "score"}, {"gradient_of": "score", "reuse": 0}])
def test_no_value_of_a_readings_step_leaves_the_device(options, tiny):
    step("sage_controls", tiny().to("meta"), "meta", **options)


@pytest.mark.parametrize("name, options", [
    ("transmix", {}), ("transmix", {"pooling": "average", "per_image": True}),
    ("sage_attention", {}), ("sage", {})])
def test_no_value_of_a_transformers_step_leaves_the_device(name, options):
    net = load(models, "vit_tiny", classes=10, width=2)
    step(name, net.to("meta"), "meta", **options)


def test_the_watch_can_fail():
    with pytest.raises(AssertionError, match="crosses"), NothingCrosses():
        torch.ones(3).to("meta")
    with pytest.raises(AssertionError, match="copied"), NothingCopied():
        torch.tensor([1.0], device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3, device="meta").sum().item()


@pytest.mark.parametrize("name", names(methods))
def test_a_whole_step_and_a_mix_run_on_fake_tensors(name, tiny):
    """Any need for a value on the host is an error."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    x = 5, 3, 16, 16
    with FakeTensorMode():
        step(name, tiny(), "cpu", watches=())
        assert method_of(name).mix(torch.randn(x), torch.ones(5, 10) / 10, tiny()).x.shape == x


def test_the_order_is_drawn_and_the_steps_run_on_the_runs_own_stream(tiny):
    """Whoever calls `begin` and `advance`: drawn elsewhere, an order may be read before it is
    there."""
    inside, seen = [], []

    class Watched(Run):
        @contextlib.contextmanager
        def place(self):
            inside.append(self)
            yield
            inside.pop()

    class Order(Batches):
        def order(self):
            seen.append(("order", len(inside)))
            return super().order()

        def take(self, index):
            seen.append(("take", len(inside), torch.backends.cudnn.benchmark))
            return super().take(index)

    images = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    data = Dataset(images, torch.arange(16) % 10, list("abcdefghij"), (.5,) * 3, (.2,) * 3)
    run = Watched(tiny(), Order(data, 8, generator=torch.Generator()), load(methods, "vanilla"),
                  Recipe(epochs=1))
    run.begin(0)
    run.advance(0)
    torch.backends.cudnn.deterministic = True
    try:
        run.advance(1)
    finally:
        torch.backends.cudnn.deterministic = False
    assert seen == [("order", 1), ("take", 1, True), ("take", 1, False)]
    assert not inside and torch.backends.cudnn.benchmark is False


def test_a_run_waits_for_what_was_asked_on_the_callers_stream(monkeypatch, tiny):
    waited = []

    class Stream:
        def wait_stream(self, other):
            waited.append(other)

    images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    data = Dataset(images, torch.arange(8) % 10, list("abcdefghij"), (.5,) * 3, (.2,) * 3)
    run = Run(tiny(), Batches(data, 8), load(methods, "vanilla"), Recipe(epochs=1))
    run.stream = Stream()
    monkeypatch.setattr(run, "place", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "default")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the caller's")
    run.begin(0)
    assert waited == ["default", "the caller's"]
