"""A Mixer and torch.compile: a compiled network, and a step that is compiled as a whole."""
import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from mixers import kinds, own_maps
from steps import gradients
from torch._dynamo.backends.common import aot_autograd
from torch.testing import assert_close

from sagelib import SAGE, CutMix, ManifoldMixup, Mixer, Mixup, RMix, SaliencyMix, catalog, methods

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


@kinds(SAGE, RMix, SaliencyMix)
def test_maps_of_ones_own_make_no_graph_break(kind, images):
    torch.compiler.reset()
    found = []
    for compiled in (True, False):
        mix = kind(10, prob=1.0, saliency=own_maps)
        step = torch.compile(mix.__call__, backend="eager", fullgraph=True) if compiled else mix
        torch.manual_seed(0)
        found.append(step(*images))
    assert_close(*found)


@pytest.mark.parametrize("reuse, expected", [(0.3, {True}), (0, {True, False})])
@pytest.mark.parametrize("form", ["torch.compile", "net.compile", "a part of it"])
def test_a_compiled_pass_computes_weight_gradients_only_where_they_are_used(
        reuse, expected, form, tiny, images):
    """Of each backward graph: whether it computes gradients of convolutions' weights."""
    torch.compiler.reset()
    computed = set()

    def backward(graph, inputs):
        masks = [node.args[-1] for node in graph.graph.nodes
                 if node.target is torch.ops.aten.convolution_backward.default]
        assert masks
        computed.add(any(weights for _, weights, _ in masks))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward),
                           bw_compiler=backward)
    net = bound = tiny().train()
    net[1].bias.requires_grad_(False)  # frozen by the user
    if form == "torch.compile":
        bound = torch.compile(net, backend=backend)
    else:
        (net if form == "net.compile" else net[0]).compile(backend=backend)
    mix = SAGE(10, seed=0, reuse=reuse).bind(bound)
    for _ in range(3):
        net.zero_grad()
        mix.loss(*images).backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == ["1.bias"]
    assert computed == expected
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["1.bias"]
    computed.clear()
    mix(*images)  # a bare call asks for no gradient of the weights
    assert computed <= {False}


def test_a_second_way_back_works_whatever_was_compiled_before(tiny, images):
    """Graphs of the loss alone write over what a second backward pass would read; networks of one
    class share them."""
    torch.compiler.reset()
    found = {}
    for gradient_of in ("loss", "score", "loss"):
        plain, net = tiny().train(), tiny().train()
        for each in (plain, torch.compile(net)):
            method = catalog.load(methods, "sage_controls", gradient_of=gradient_of)
            Mixer(method, 10, seed=0).bind(each).loss(*images).backward()
        assert_close(gradients(net), gradients(plain), rtol=1e-4, atol=1e-5)
        found[gradient_of] = gradients(net)[0]
    assert not torch.allclose(found["loss"], found["score"])
