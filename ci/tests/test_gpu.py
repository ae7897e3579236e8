"""What only a GPU can show: the kernel, a step without a wait, the CUDA graph, runs on streams.
Skipped without one."""
import copy
import warnings
from typing import Any

import pytest
import torch
from mixers import ALL, kinds  # pyrefly: ignore [missing-import]
from torch.testing import assert_close

from sagelib import SAGE, CoMixup, methods, models, search
from sagelib.catalog import load, names
from sagelib.data.batches import Batches
from sagelib.datasets import shapes as shapes_data
from sagelib.rearrange import best_offset, offsets
from sagelib.saliency import normalise, smooth
from sagelib.solvers import grid_labelling, min_cut
from sagelib.train import Recipe, Run, fit_together
from sagelib.train.cuda_graph import WARM, CudaGraphStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WAITS = {"randaugment"}              # torchvision's operations, drawn on the host
OP_BY_OP = WAITS | {"puzzlemix"}     # its grid, drawn on the host, decides the shapes


@pytest.fixture(scope="module")
def data():
    return [part.to("cuda") for part in shapes_data.load(train=320, test=100)]


def make(data, name, seed=0, graph=True, epochs=3, checkpoint=None, **recipe):
    torch.manual_seed(seed)
    net = load(models, "preactresnet18", classes=10, width=8).cuda()
    batches = Batches(data[0], 32, generator=torch.Generator("cuda").manual_seed(seed))
    return Run(net, batches, load(methods, name).seed(seed, "cuda"),
               Recipe(epochs=epochs, lr=0.05, **recipe), checkpoint, graph)


def weights(run):
    return torch.cat([p.flatten().float() for p in run.net.state_dict().values()])


@pytest.mark.parametrize("h, w", [(32, 32), (5, 8), (1, 7), (84, 84), (40, 9)])
def test_the_kernel_and_the_gathers_are_the_slices(h, w):
    g = torch.Generator().manual_seed(0)
    a, b = (normalise(smooth(torch.rand(4, 1, h, w, generator=g) ** 8)) for _ in range(2))
    tau = offsets(h, w)
    tau = tau[torch.randperm(len(tau), generator=g)[:500]]
    slow = search.slices(a[:, 0].double(), b[:, 0].double(), tau)
    on = [t.cuda() for t in (a[:, 0], b[:, 0], tau)]
    assert search.choose_backend(on[0], on[2]).__module__.endswith("search.triton")
    for form in (search.search, search.gather):
        assert_close(form(*on).cpu().double(), slow, rtol=1e-6, atol=0)
    best = best_offset(a.cuda(), b.cuda(), tau.cuda()).cpu()
    chosen = torch.stack([row[(tau == t).all(1)][0] for row, t in zip(slow, best, strict=True)])
    assert (slow.amax(1) - chosen < 1e-6 * slow.amax(1)).all()


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_min_cut_is_that_of_the_host(n):
    g = torch.Generator().manual_seed(n)
    terms = [torch.rand(100, *size, generator=g) for size in ((3, n, n), (n - 1, n), (n, n - 1))]
    terms[0] *= torch.rand(100, 1, 1, 1, generator=g) * 4
    assert torch.equal(min_cut.min_cut(*(t.cuda() for t in terms)).cpu(), min_cut.min_cut(*terms))


def test_grid_labelling_is_that_of_the_host():
    g = torch.Generator().manual_seed(0)
    cost = torch.randn(20, 4, 4, 23, generator=g).double()
    apart = 1 - torch.eye(23).double().repeat(20, 1, 1)
    wanted = torch.arange(20) % 3 > 0
    solved = grid_labelling.minimise(cost.cuda(), apart.cuda(), 0.5, wanted.cuda()).cpu()
    assert torch.equal(solved, grid_labelling.minimise(cost, apart, 0.5, wanted))


@pytest.mark.parametrize("name", sorted(set(names(methods)) - WAITS))
def test_no_step_waits_for_the_host(name, data):
    run = make(data, name, graph=False)
    run.begin(0)
    run.advance(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.advance(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", sorted(set(names(methods)) - OP_BY_OP))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_recorded_step_trains_as_the_plain_one(name, precision, data):
    plain, graphed = (make(data, name, graph=graph, precision=precision)
                      for graph in (False, True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_together([plain])
        fit_together([graphed])
    assert isinstance(graphed.step, CudaGraphStep) and graphed.step.graph is not None
    assert len(graphed.batches) * 3 > WARM
    for a, b in zip(plain.curve, graphed.curve, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)
    for a, b in zip(plain.generators().values(), graphed.generators().values(), strict=True):
        assert torch.equal(a.get_state(), b.get_state())


@pytest.mark.parametrize("recipe", [dict(schedule="cosine"), dict(schedule="one_cycle"),
                                    dict(schedule="cosine", optimizer="adam")], ids=str)
def test_a_recorded_step_sees_the_rate_of_each_step(recipe, data):
    """A rate that the recording had kept would lead to other weights."""
    runs = [make(data, "vanilla", graph=graph, **recipe) for graph in (False, True)]
    constant = make(data, "vanilla", **{**recipe, "schedule": "steps"})
    for run in (*runs, constant):
        fit_together([run])
    plain, graphed = map(weights, runs)
    assert_close(graphed, plain, rtol=0.02, atol=0.02)
    assert (graphed - plain).norm() < 0.2 * (weights(constant) - plain).norm()


def test_a_recorded_step_of_adam_goes_on_from_the_best_epoch(data):
    """The recording reads the tensors that the rewind fills, weights and moments."""
    recipe = dict(optimizer="adam", schedule="plateau", patience=0, rewind=True, epochs=4)
    runs = [make(data, "vanilla", graph=graph, **recipe) for graph in (False, True)]
    for run in runs:
        losses = iter([0.5, 1.0, 0.4, 1.0])
        fit_together([run], lambda net, left=losses: {"val_loss": next(left)})
        (step,) = {int(state["step"]) for state in run.optimizer.state.values()}
        assert step == 2 * len(run.batches)  # the first epoch and the third
        assert [e["lr"] for e in run.curve] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    plain, graphed = runs
    assert isinstance(graphed.step, CudaGraphStep) and graphed.step.graph is not None
    assert_close(weights(graphed), weights(plain), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", sorted(OP_BY_OP))
def test_what_cannot_be_recorded_says_so_and_trains(name, data):
    with pytest.warns(UserWarning, match="runs op by op, not as a CUDA graph"):
        (curve,) = fit_together([make(data, name, epochs=1)])
    (plain,) = fit_together([make(data, name, epochs=1, graph=False)])
    assert curve[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=0.05)


def test_a_run_goes_on_from_its_checkpoint(data, tmp_path):
    whole, half = make(data, "sage"), make(data, "sage", epochs=3, checkpoint=tmp_path / "c.pt")
    fit_together([whole])

    def stop(curves):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together([half], on_epoch=stop)
    rest = make(data, "sage", epochs=3, checkpoint=tmp_path / "c.pt")
    fit_together([rest])
    for a, b in zip(rest.curve, whole.curve, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in
               zip(whole.generators().values(), rest.generators().values(), strict=True))


def test_runs_on_streams_come_out_as_if_alone(data):
    alone = [make(data, "sage", seed) for seed in range(3)]
    for run in alone:
        fit_together([run])
    together = [make(data, "sage", seed) for seed in range(3)]
    fit_together(together)
    for a, b in zip(alone, together, strict=True):
        assert_close([e["train_loss"] for e in a.curve], [e["train_loss"] for e in b.curve],
                     rtol=0.05, atol=0)


@pytest.mark.parametrize("per_image", [False, True])
@kinds(*(kind for kind in ALL if kind is not CoMixup))
def test_a_mixer_does_not_wait_for_the_host(kind, per_image, data):
    x, target = data[0].normalised()[:32], data[0].labels[:32]
    net = load(models, "preactresnet18", classes=10, width=8).cuda().train()
    mix = kind(num_classes=10, seed=0, per_image=per_image).bind(net)
    for _ in range(3):
        mix.loss(x, target).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mix.loss(x, target).backward()
        mixed, y = mix(x, target)
        torch.nn.functional.cross_entropy(net(mixed), y).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_mixer_in_half_precision_with_a_scaler(half, data):
    x, target = data[0].normalised()[:100], data[0].labels[:100]
    net = load(models, "preactresnet18", classes=10, width=16).cuda().train()
    found = {}
    for name, enabled in (("float32", False), ("half", True)):
        net.zero_grad()
        mix = SAGE(num_classes=10, seed=0).bind(net)
        scaler = torch.amp.GradScaler("cuda", enabled=half == torch.float16)
        with torch.autocast("cuda", half, enabled=enabled):
            loss = mix.loss(x, target, scaler=scaler)
        scaler.scale(loss).backward()
        scaler.unscale_(torch.optim.SGD(net.parameters(), 0.1))
        assert mix.last and mix.last.saliency is not None
        grads = torch.cat([p.grad.flatten() for p in net.parameters()])
        found[name] = grads, mix.last.saliency.flatten()
    for a, b in zip(*found.values(), strict=True):
        assert a.isfinite().all() and torch.nn.functional.cosine_similarity(a, b, 0) > 0.9


def test_a_mixer_on_a_compiled_network(data):
    x, target = data[0].normalised()[:32], data[0].labels[:32]
    torch.manual_seed(0)
    plain = load(models, "preactresnet18", classes=10, width=8).cuda().train()
    twin = copy.deepcopy(plain)
    nets: list[Any] = [plain, torch.compile(twin)]
    for net in nets:
        mix = SAGE(num_classes=10, seed=0).bind(net)
        for _ in range(3):
            net.zero_grad()
            mix.loss(x, target).backward()
    for p, q in zip(plain.parameters(), twin.parameters(), strict=True):
        assert (p.grad - q.grad).norm() < 0.02 * p.grad.norm() + 1e-6
