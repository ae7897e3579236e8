"""A Mixer where the network is wrapped: half precision and GradScaler, Lightning Fabric,
DistributedDataParallel; with every method, and images of any size."""
import copy

import oracles
import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from mixers import ALWAYS, GUIDED, METHOD, every, guided
from networks import Attentive
from steps import gradients
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from sagelib import SAGE, ManifoldMixup, Mixer, PuzzleMix, TransMix, catalog, methods
from sagelib.losses import one_hot
from sagelib.saliency import saliency


def correlation(maps, wanted):
    return torch.corrcoef(torch.stack([maps.flatten(), wanted.flatten()]).double())[0, 1]


@pytest.mark.parametrize("name", catalog.names(methods))
def test_any_method_of_the_catalogue_makes_a_mixer(name, tiny, images):
    mix = Mixer(catalog.load(methods, name), 10, seed=0).bind(tiny().train())
    for _ in range(3):
        mix.loss(*images).backward()
        assert mix.last.x.shape == images[0].shape
    if name != "manifold_mixup":
        assert_close(mix(*images)[1].sum(1), torch.ones(6))


@every
def test_a_call_is_the_methods_own_mix(kind, tiny, images):
    net, given = tiny().train(), ALWAYS.get(kind, {})
    mix = kind(num_classes=10, seed=3, **given).bind(net)
    method = METHOD[kind](criterion="cross_entropy", **given).seed(3)
    expected = method.mix(images[0], one_hot(images[1], 10), net)
    x, y = mix(*images)
    assert torch.equal(x, expected.x) and torch.equal(y, expected.y)
    assert torch.equal(mix.last.x, x)
    assert (mix.last.saliency is not None) == (kind in (*GUIDED, TransMix))


@pytest.mark.parametrize("size, n", [((224, 224), 2), ((14, 18), 1), ((1, 1), 3)])
@every
def test_large_images_single_images_and_single_pixels(kind, size, n):
    net = Attentive(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4),
                    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    x, t = torch.randn(n, 3, *size), torch.randint(10, (n,))
    mix = kind(num_classes=10, **({"stages": 0} if kind is ManifoldMixup else {})).bind(net)
    mixed, y = mix(x, t)
    assert mixed.shape == x.shape and mixed.isfinite().all() and y.isfinite().all()
    mix.loss(x, t).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


# half precision

@guided
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
        assert correlation(maps, mix.last.saliency) > 0.98
        assert (mix.last.saliency.amax((1, 2, 3)) > 0).all()
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


@pytest.fixture
def faint(tiny):
    """A network whose gradient with respect to a pixel is about 1e-8, nothing in float16, and
    images and class indices for it."""
    net = tiny(norm=False).train()
    with torch.no_grad():
        net[0].weight *= 0.01
    return net, torch.randn(100, 3, 32, 32), torch.randint(10, (100,))


def test_float16_without_a_scaler_does_not_lose_the_map(faint):
    net, x, t = faint
    with torch.autocast("cpu", torch.float16):
        mix = SAGE(num_classes=10).bind(net)
        mix(x, t)
    assert mix.last.saliency.flatten(1).gt(0).float().mean() > 0.9


@guided
@pytest.mark.parametrize("form", ["__call__", "loss"])
def test_a_network_that_chooses_float16_by_itself(kind, form, faint):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, z):
            with torch.autocast("cpu", torch.float16, enabled=self.training):
                return self.net(z)

    net, x, t = faint
    wanted = saliency(
        torch.autograd.grad(F.cross_entropy(net(z := x.clone().requires_grad_()), t), z)[0])
    mix = kind(10, seed=0).bind(Inside().train())
    getattr(mix, form)(x, t)
    assert (mix.last.saliency.amax((1, 2, 3)) > 0).all()
    # Puzzle Mix computes saliency in evaluation mode: here in float32
    assert correlation(mix.last.saliency, wanted) > (0.9 if kind is PuzzleMix else 0.98)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@guided
def test_lightning_fabric(kind, precision, tiny, images):
    import lightning
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    inner = tiny(norm=False)
    net, optimizer = fabric.setup(inner, torch.optim.SGD(inner.parameters(), 0.1))
    mix, twin = kind(10, seed=0).bind(net), kind(10, seed=0).bind(tiny(norm=False))
    assert_close(mix(*images), twin(*images))
    fabric.backward(mix.loss(*images))
    twin.loss(*images).backward()
    close = {} if precision == "32-true" else {"rtol": 0.1, "atol": 0.02}
    for p, q in zip(inner.parameters(), twin.model.parameters(), strict=True):
        assert_close(p.grad, q.grad, **close)
    optimizer.step()


# two processes

def two_processes(rank, folder, port):
    """One of two processes: saves the gradients of each form, and of accumulated batches."""
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
    alone = nn.Sequential(*net)  # a class of torch, which the other processes know
    torch.save((alone, x, t), tmp_path / "start.pt")
    torch.multiprocessing.spawn(two_processes, (tmp_path, port), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for a, b in zip(*ranks, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    kept = [torch.load(tmp_path / f"accumulated{rank}.pt", weights_only=True) for rank in range(2)]
    assert not all(torch.equal(p, q) for p, q in zip(kept[0][0], kept[1][0], strict=True))
    assert_close(kept[0][1], kept[1][1])
    assert_close(kept[0][1], [(p + q) / 2 for p, q in zip(kept[0][2], kept[1][2], strict=True)])
    # one process: each half mixed by the draws of its rank, then one loss over the joint batch
    mixers = [SAGE(num_classes=10, seed=rank).bind(alone) for rank in range(2)]
    made = [mix(*half) for mix, *half in zip(mixers, x.chunk(2), t.chunk(2), strict=True)]
    mixed, y = (torch.cat(parts) for parts in zip(*made, strict=True))
    losses = F.cross_entropy(alone(x), t), F.cross_entropy(alone(mixed), y.double())
    for found, reuse in zip(ranks[0], (0.3, 0.0, 0.0), strict=True):
        expected = oracles.weighted_gradient(losses, (reuse, 1 - reuse), [*alone.parameters()])
        assert_close(found, expected, rtol=1e-6, atol=1e-8)
