"""What only a GPU can show: the kernel, a step without a wait, the CUDA graph, runs on streams.
Skipped without one.

All arithmetic is in float32 without TF32, and cuDNN takes deterministic algorithms, unless a test
says otherwise: two ways to compute one thing then differ by rounding alone. Each test takes under
20 s on an H200; `ci/gpu --only tests` runs them one by one.
"""
import copy
import warnings
from typing import Any

import pytest
import torch
from mixers import ALL, kinds  # pyrefly: ignore [missing-import]
from networks import network_for  # pyrefly: ignore [missing-import]
from torch.testing import assert_close

from sagelib import SAGE, CoMixup, TransMix, methods, models, search
from sagelib.catalog import load, names
from sagelib.data.batches import Batches
from sagelib.datasets import shapes as shapes_data
from sagelib.rearrange import best_offset, offsets
from sagelib.saliency import normalise, smooth
from sagelib.solvers import grid_labelling, min_cut
from sagelib.train import Recipe, Run, checkpoint, fit_together
from sagelib.train.cuda_graph import WARM, CudaGraphStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WAITS = {"randaugment"}              # torchvision's operations, drawn on the host
OP_BY_OP = WAITS | {"puzzlemix"}     # its grid, drawn on the host, decides the shapes


@pytest.fixture(autouse=True)
def exact():
    """float32 is float32: TF32 has a mantissa of 10 bits, and atomic additions no fixed order."""
    switches = [(torch.backends.cuda.matmul, "allow_tf32", False),
                (torch.backends.cudnn, "allow_tf32", False),
                (torch.backends.cudnn, "deterministic", True)]
    before = [getattr(where, name) for where, name, _ in switches]
    for where, name, value in switches:
        setattr(where, name, value)
    yield
    for (where, name, _), value in zip(switches, before, strict=True):
        setattr(where, name, value)


@pytest.fixture(scope="module")
def data():
    """320 training and 100 test images on the GPU."""
    return [part.to("cuda") for part in shapes_data.load(train=320, test=100)]


def make(data, name, seed=0, graph=True, epochs=3, checkpoint=None, net=None, **recipe):
    torch.manual_seed(seed)
    net = (net or load(models, network_for(name), classes=10, width=8)).cuda()
    batches = Batches(data[0], 32, generator=torch.Generator("cuda").manual_seed(seed))
    return Run(net, batches, load(methods, name).seed(seed, "cuda"),
               Recipe(epochs=epochs, lr=0.05, **recipe), checkpoint, graph)


def weights(run):
    """Every number of a run's network, buffers included, as one vector."""
    return torch.cat([p.flatten().float() for p in run.net.state_dict().values()])


class TwoBlocks(torch.nn.Sequential):
    """Two convolutions with BatchNorm and a linear layer: little to compile."""

    def __init__(self):
        layers = []
        for before, after in ((3, 8), (8, 8)):
            # without a bias, whose gradient before BatchNorm would be rounding alone
            layers += [torch.nn.Conv2d(before, after, 3, padding=1, bias=False),
                       torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                         torch.nn.Linear(8, 10))


@pytest.mark.parametrize("h, w", [(32, 32), (5, 8), (1, 7), (84, 84), (40, 9)])
def test_the_kernel_and_the_gathers_are_the_slices(h, w):
    """Total saliency of 500 shifts: the Triton kernel and the gathers, float32 on the GPU, against
    the loop over slices in float64 on the CPU, to 1e-6 of the value."""
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
    """Integer capacities on both sides: the labels are equal."""
    pytest.importorskip("scipy", reason="the host's side needs scipy")
    g = torch.Generator().manual_seed(n)
    terms = [torch.rand(100, *size, generator=g) for size in ((3, n, n), (n - 1, n), (n, n - 1))]
    terms[0] *= torch.rand(100, 1, 1, 1, generator=g) * 4
    assert torch.equal(min_cut.min_cut(*(t.cuda() for t in terms)).cpu(), min_cut.min_cut(*terms))


def test_grid_labelling_is_that_of_the_host():
    """float64 on both sides, random costs without ties: the labels are equal."""
    pytest.importorskip("numba", reason="the host's side needs numba")
    g = torch.Generator().manual_seed(0)
    cost = torch.randn(20, 4, 4, 23, generator=g).double()
    apart = 1 - torch.eye(23).double().repeat(20, 1, 1)
    wanted = torch.arange(20) % 3 > 0
    solved = grid_labelling.minimise(cost.cuda(), apart.cuda(), 0.5, wanted.cuda()).cpu()
    assert torch.equal(solved, grid_labelling.minimise(cost, apart, 0.5, wanted))


@pytest.mark.parametrize("name", sorted(set(names(methods)) - WAITS))
def test_no_step_waits_for_the_host(name, data):
    """PyTorch raises an error where an operation waits for the device; no values are compared."""
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
    """Mean training loss of each of three epochs, op by op against replayed, to 5 %: rounding grows
    over 30 steps, in bfloat16 most, where cuDNN also takes its fastest algorithms, as in training.
    The generators end in the same state, bit by bit."""
    torch.backends.cudnn.deterministic = precision == "fp32"  # `exact` puts it back
    plain, graphed = (make(data, name, graph=graph, precision=precision)
                      for graph in (False, True))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the training step runs op by op")
        fit_together([plain])
        fit_together([graphed])
    assert isinstance(graphed.step, CudaGraphStep) and graphed.step.graph is not None
    assert len(graphed.batches) * 3 > WARM
    for a, b in zip(plain.curve, graphed.curve, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)
    for a, b in zip(plain.generators().values(), graphed.generators().values(), strict=True):
        assert torch.equal(a.get_state(), b.get_state())


def test_a_compiled_run_is_recorded_and_trains_as_the_plain_one(data):
    """SAGE on a small network in float32, compiled and replayed against neither: the mean training
    losses of three epochs to 5 %, and generators bit by bit."""
    runs = []
    for compiled in (False, True):
        torch.manual_seed(0)
        runs.append(make(data, "sage", net=TwoBlocks(), graph=compiled, compile=compiled))
        fit_together(runs[-1:])
    plain, fast = runs
    assert isinstance(fast.step, CudaGraphStep) and fast.step.graph is not None
    for a, b in zip(plain.curve, fast.curve, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)
    for a, b in zip(plain.generators().values(), fast.generators().values(), strict=True):
        assert torch.equal(a.get_state(), b.get_state())


def linear():
    """A network that rounding does not lead astray, always with the same weights."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(192, 10))


@pytest.mark.parametrize("recipe", [dict(schedule="cosine"), dict(schedule="one_cycle"),
                                    dict(schedule="cosine", optimizer="adam")], ids=str)
def test_a_recorded_step_sees_the_rate_of_each_step(recipe, data):
    """Weights of a linear network after three epochs in float32, op by op against replayed. They
    agree to 0.1 % of the distance to a training with a constant rate, which is where a rate that
    the recording had kept would lead to. (In a deep network rounding alone leads a third of that
    way in 30 steps.)"""
    def trained(**how):
        run = make(data, "vanilla", net=linear(), **how)
        fit_together([run])
        return run, weights(run)

    (_, plain), (run, graphed) = (trained(graph=graph, **recipe) for graph in (False, True))
    constant = trained(graph=False, **{**recipe, "schedule": "steps"})[1]
    assert isinstance(run.step, CudaGraphStep) and run.step.graph is not None
    assert (graphed - plain).norm() < 1e-3 * (constant - plain).norm()


def test_a_recorded_step_of_adam_goes_on_from_the_best_epoch(data):
    """The recording reads the tensors that the rewind fills, weights and moments: of a linear
    network in float32, to 0.1 %."""
    recipe = dict(optimizer="adam", schedule="plateau", patience=0, rewind=True, epochs=4)
    runs = [make(data, "vanilla", net=linear(), graph=graph, **recipe) for graph in (False, True)]
    for run in runs:
        losses = iter([0.5, 1.0, 0.4, 1.0])
        fit_together([run], lambda net, left=losses: {"val_loss": next(left)})
        (step,) = {int(state["step"]) for state in run.optimizer.state.values()}
        assert step == 2 * len(run.batches)  # the first epoch and the third
        assert [e["lr"] for e in run.curve] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    plain, graphed = runs
    assert isinstance(graphed.step, CudaGraphStep) and graphed.step.graph is not None
    assert_close(weights(graphed), weights(plain), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted(OP_BY_OP))
def test_what_cannot_be_recorded_says_so_and_trains(name, data):
    """A warning, and the mean training loss of an epoch as without the attempt, to 5 %."""
    with pytest.warns(UserWarning, match="runs op by op, not as a CUDA graph"):
        (curve,) = fit_together([make(data, name, epochs=1)])
    (plain,) = fit_together([make(data, name, epochs=1, graph=False)])
    assert curve[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=0.05)


def test_a_run_goes_on_from_its_checkpoint(data, tmp_path):
    """Stopped after an epoch and continued, against never stopped: training losses to 5 %, since
    the new run makes its first steps op by op; generators bit by bit."""
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


def test_a_checkpoint_is_copied_to_pinned_memory_with_one_wait(data):
    """Nothing else waits for the device; what changes on the device afterwards is not in it."""
    run = make(data, "sage", epochs=2)
    fit_together([run], Batches(data[1], 100))
    before = {k: v.cpu() for k, v in run.net.state_dict().items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            state = checkpoint._copied(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(w.message) for w in caught) <= 1
    for parameter in run.net.parameters():
        parameter.data.zero_()
    torch.cuda.synchronize()
    momentum = [v["momentum_buffer"] for v in state["optimizer"].values()]
    assert all(v.is_pinned() for v in (*state["net"].values(), *momentum))
    assert all(torch.equal(state["net"][k], v) for k, v in before.items())


def test_the_best_epoch_stays_on_the_device(data, tmp_path):
    def started():
        run = make(data, "vanilla", epochs=4, checkpoint=tmp_path / "c.pt")
        run.select = "test_accuracy"
        return run

    run, log = started(), []

    def test(net):
        log.append({k: v.cpu() for k, v in net.state_dict().items()})
        return {"test_accuracy": [1.0, 3.0, 2.0, 3.0][len(log) - 1]}

    fit_together([run], test)
    assert run.best
    assert all(v.is_cuda and torch.equal(v.cpu(), log[1][k]) for k, v in run.best.items())
    resumed = started()
    checkpoint.restore(resumed)
    assert resumed.best
    assert all(v.is_cuda and torch.equal(v.cpu(), log[1][k]) for k, v in resumed.best.items())


def test_runs_on_streams_come_out_as_if_alone(data):
    """Mean training losses of three seeds, one after another and side by side, to 5 %. A read of
    another run's memory would be far off, or an index out of bounds."""
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
    """As for the steps above: an error where a call or a loss waits; no values are compared."""
    x, target = data[0].normalised()[:32], data[0].labels[:32]
    name = "vit_tiny" if kind is TransMix else "preactresnet18"
    net = load(models, name, classes=10, width=8).cuda().train()
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
    """Gradient and saliency under autocast against float32: a cosine above 0.8 and 0.95, norms to
    25 %. bfloat16 has 8 bits of mantissa, so that some images take another shift: over six seeds,
    the cosines were 0.91 to 0.97 and 0.986 on a CPU, and the norms agreed to 2 %."""
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
    for least, a, b in zip((0.8, 0.95), *found.values(), strict=True):
        assert b.isfinite().all() and torch.nn.functional.cosine_similarity(a, b, 0) > least
        assert 0.75 < b.norm() / a.norm() < 1.25


def after_three_steps(net, mixer, data):
    """(gradients, buffers, saliency, shifts) of the third loss; the weights stay as they were."""
    x, target = data[0].normalised()[:16], data[0].labels[:16]
    for _ in range(3):
        net.zero_grad()
        mixer.loss(x, target).backward()
    assert mixer.last is not None
    return ([p.grad for p in net.parameters()], list(net.buffers()), mixer.last.saliency,
            mixer.last.tau)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("rearranged", [False, True])
def test_a_mixer_on_a_compiled_network(backend, rearranged, data):
    """The same draws on a compiled and on a plain network, both in float32. Its gradients,
    BatchNorm's running statistics and saliency agree to 1e-3 of their norm: each is a sum of up to
    16 * 32 * 32 terms, so rounding is below sqrt(16384) * 6e-8, about 1e-5, of the terms, and the
    terms cancel. With the search, rounding may decide between two shifts of nearly the same value:
    then saliency is compared, and 14 of 16 shifts must be the same."""
    torch.manual_seed(0)
    plain = TwoBlocks().cuda().train()
    twin = copy.deepcopy(plain)
    torch.compiler.reset()
    nets: list[Any] = [plain, torch.compile(twin, backend=backend)]
    found = [after_three_steps(net, SAGE(num_classes=10, seed=0, rearranged=rearranged).bind(net),
                               data) for net in nets]
    (grads, buffers, saliency, tau), others = found[0], found[1]
    pairs = [(saliency, others[2])]
    if rearranged:
        assert (tau == others[3]).all(1).sum() >= 14
    else:
        pairs += [*zip(grads, others[0], strict=True), *zip(buffers, others[1], strict=True)]
    for a, b in pairs:
        a, b = a.float(), b.float()
        assert (a - b).norm() <= 1e-3 * a.norm() + 1e-6
