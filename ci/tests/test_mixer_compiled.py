"""A Mixer and torch.compile: a compiled network, and a step that is compiled as a whole."""
import pytest
import torch
import torch.nn.functional as F
from mixers import kinds, own_maps
from steps import gradients
from torch.testing import assert_close

from sagelib import SAGE, CutMix, ManifoldMixup, Mixup, SaliencyMix

STEPS = {"call": lambda mix, net, x, t: (lambda x, y: F.cross_entropy(net(x), y))(*mix(x, t)),
         "loss": lambda mix, net, x, t: mix.loss(x, t)}


@kinds(SAGE, ManifoldMixup)
def test_a_compiled_network_trains_as_the_plain_one(kind, tiny, images):
    torch.compiler.reset()
    one, two = tiny().train(), tiny().train()
    compiled = torch.compile(one, backend="aot_eager")
    plain, fast = kind(10, seed=0).bind(two), kind(10, seed=0).bind(compiled)
    for _ in range(4):
        for net, mix in ((two, plain), (compiled, fast)):
            net.zero_grad()
            mix.loss(*images).backward()
            x, y = mix(*images)
            F.cross_entropy(net(x), y).backward()
        assert_close(gradients(one), gradients(two), rtol=1e-4, atol=1e-6)
    assert_close(list(one.buffers()), list(two.buffers()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", STEPS)
@kinds(Mixup, CutMix, SaliencyMix)
def test_a_compiled_step_has_no_graph_break_and_the_same_draws(kind, form, tiny, images):
    """`fullgraph=True` turns every graph break, and every value that the host reads, into an
    error."""
    torch.compiler.reset()
    losses = []
    for compiled in (True, False):
        net = tiny()
        mix = kind(10, prob=1.0).bind(net)

        def step(x, t, mix=mix, net=net):
            return STEPS[form](mix, net, x, t)

        step = torch.compile(step, backend="eager", fullgraph=True) if compiled else step
        torch.manual_seed(0)
        losses.append([step(*images).item() for _ in range(3)])
        assert mix.last.share.shape == (6,)
    assert_close(*losses)
    assert len(set(losses[0])) == 3


@kinds(SAGE, SaliencyMix)
def test_maps_of_ones_own_make_no_graph_break(kind, images):
    torch.compiler.reset()
    found = []
    for compiled in (True, False):
        mix = kind(10, prob=1.0, saliency=own_maps)
        step = torch.compile(mix.__call__, backend="eager", fullgraph=True) if compiled else mix
        torch.manual_seed(0)
        found.append(step(*images))
    assert_close(*found)
