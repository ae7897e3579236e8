"""What only a GPU can show: the kernel, a step without a wait, the CUDA graph, runs on streams. Skipped without one."""
import warnings

import pytest
import torch
from torch.testing import assert_close

from sagelib import _search, methods, models
from sagelib._capture import WARM
from sagelib.batches import Batches
from sagelib.catalog import load, names
from sagelib.datasets import shapes as shapes_data
from sagelib.rearrange import best_offset, offsets
from sagelib.saliency import normalise, smooth
from sagelib.train import Recipe, Run, fit_together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
ON_HOST = {"puzzlemix", "comixup", "randaugment"}  # solved, or drawn, on the host by design


@pytest.fixture(scope="module")
def data():
    return [part.to("cuda") for part in shapes_data.load(train=320, test=100)]


def make(data, name, seed=0, graph=True, epochs=3, checkpoint=None, **recipe):
    torch.manual_seed(seed)
    net = load(models, "preactresnet18", classes=10, width=8).cuda()
    batches = Batches(data[0], 32, generator=torch.Generator("cuda").manual_seed(seed))
    return Run(net, batches, load(methods, name).seed(seed, "cuda"), Recipe(epochs=epochs, lr=0.05, **recipe),
               checkpoint, graph)


def weights(run):
    return torch.cat([p.flatten().float() for p in run.net.state_dict().values()])


@pytest.mark.parametrize("h, w", [(32, 32), (5, 8), (1, 7), (84, 84), (40, 9)])
def test_the_kernel_and_the_gathers_are_the_slices(h, w):
    g = torch.Generator().manual_seed(0)
    a, b = (normalise(smooth(torch.rand(4, 1, h, w, generator=g) ** 8)) for _ in range(2))
    tau = offsets(h, w)
    tau = tau[torch.randperm(len(tau), generator=g)[:500]]
    slow = _search.slices(a[:, 0].double(), b[:, 0].double(), tau)
    on = [t.cuda() for t in (a[:, 0], b[:, 0], tau)]
    assert _search.form(on[0], on[2]).__module__.endswith("_search_triton")
    for form in (_search.search, _search.gather):
        assert_close(form(*on).cpu().double(), slow, rtol=1e-6, atol=0)
    best = best_offset(a.cuda(), b.cuda(), tau.cuda()).cpu()
    chosen = torch.stack([row[(tau == t).all(1)][0] for row, t in zip(slow, best, strict=True)])
    assert (slow.amax(1) - chosen < 1e-6 * slow.amax(1)).all()


@pytest.mark.parametrize("name", sorted(set(names(methods)) - ON_HOST))
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


@pytest.mark.parametrize("name", sorted(set(names(methods)) - ON_HOST))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_recorded_step_trains_as_the_plain_one(name, precision, data):
    plain, graphed = make(data, name, graph=False, precision=precision), make(data, name, precision=precision)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_together([plain]), fit_together([graphed])
    assert graphed.step.graph is not None and len(graphed.batches) * 3 > WARM
    for a, b in zip(plain.curve, graphed.curve, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)
    for a, b in zip(plain._generators().values(), graphed._generators().values(), strict=True):
        assert torch.equal(a.get_state(), b.get_state())


@pytest.mark.parametrize("name", sorted(ON_HOST))
def test_what_cannot_be_recorded_says_so_and_trains(name, data):
    with pytest.warns(UserWarning, match="runs op by op, not as a CUDA graph"):
        (curve,) = fit_together([make(data, name, epochs=1)])
    assert curve[0]["train_loss"] > 0


def test_a_run_goes_on_from_its_checkpoint(data, tmp_path):
    whole, half = make(data, "sage"), make(data, "sage", epochs=3, checkpoint=tmp_path / "c.pt")
    fit_together([whole])

    def stop(curves):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together([half], on_epoch=stop)
    rest = make(data, "sage", epochs=3, checkpoint=tmp_path / "c.pt")
    fit_together([rest])
    assert [e["train_loss"] for e in rest.curve] == pytest.approx([e["train_loss"] for e in whole.curve], rel=0.05)
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in
               zip(whole._generators().values(), rest._generators().values(), strict=True))


def test_runs_on_streams_come_out_as_if_alone(data):
    alone = [make(data, "sage", seed) for seed in range(3)]
    for run in alone:
        fit_together([run])
    together = [make(data, "sage", seed) for seed in range(3)]
    fit_together(together)
    for a, b in zip(alone, together, strict=True):
        assert_close([e["train_loss"] for e in a.curve], [e["train_loss"] for e in b.curve], rtol=0.05, atol=0)
