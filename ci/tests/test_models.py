"""Networks: layer for layer, by count and by the authors' own logits; the contract for all in the
catalogue."""
import oracles
import pytest
import torch
from torch.testing import assert_close

from sagelib import catalog, models
from sagelib.models.preactresnet18 import PreActResNet

NAMES = catalog.names(models)


@pytest.mark.parametrize("name, classes, count, tensors", [
    ("preactresnet18", 10, 11_171_146, 54), ("preactresnet18", 100, 11_217_316, 54),
    ("wrn16_8", 10, 10_965_866, 60), ("wrn16_8", 100, 11_012_036, 60),
    ("resnext29_4_24", 10, 4_845_002, 95), ("resnext29_4_24", 100, 4_937_252, 95)])
def test_networks_have_the_authors_parameters(name, classes, count, tensors):
    net = catalog.load(models, name, classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count
    assert len(list(net.parameters())) == tensors


@pytest.mark.parametrize("name, width, oracle", [("wrn16_8", 1, oracles.wide_resnet),
                                                 ("resnext29_4_24", 4, oracles.resnext),
                                                 ("resnet12", 4, oracles.resnet12)])
def test_a_network_is_its_definition_in_functions(name, width, oracle):
    net = catalog.load(models, name, classes=5, width=width).double()
    x = torch.randn(3, 3, 32, 48, dtype=torch.float64)
    assert_close(net(x), oracle(net.state_dict(), x))


@pytest.mark.parametrize("h, w", [(32, 32), (8, 16)])
def test_the_transformer_and_its_attention_are_their_definition_in_loops(h, w):
    """The position is learnt for 32 x 32 pixels, and interpolated for others."""
    torch.manual_seed(0)
    net = catalog.load(models, "vit_tiny", classes=5, width=2).double()
    for p in net.parameters():  # as after training: attention is not nearly uniform
        torch.nn.init.normal_(p)
    net.last_block.qkv.weight.data *= 3
    x = torch.randn(2, 3, h, w, dtype=torch.float64)
    logits, attention = net(x, with_attention=True)
    with torch.no_grad():
        wanted, maps = oracles.vision_transformer(net.state_dict(), x)
    assert_close(logits, wanted)
    assert_close(attention, maps)
    assert (attention.amax((1, 2, 3)) > 1.5 * attention.mean((1, 2, 3))).all()


def test_the_transformer_is_of_deits_tiny_size_and_heads():
    net = catalog.load(models, "vit_tiny", classes=10)
    assert sum(p.numel() for p in net.parameters()) == 5_362_570
    blocks = [*(b for stage in net.stages for b in stage), net.last_block]
    assert len(blocks) == 12 and {b.qkv.weight.shape for b in blocks} == {(576, 192)}


def test_attention_is_computed_only_where_it_is_asked_for(monkeypatch):
    net = catalog.load(models, "vit_tiny", classes=5, width=2)
    x = torch.randn(2, 3, 32, 32)
    logits, attention = net(x, with_attention=True)
    assert not attention.requires_grad and attention.shape == (2, 1, 8, 8)
    # what is left is the class token's attention to itself
    assert (attention.sum((1, 2, 3)) < 1).all() and attention.min() > 0
    monkeypatch.setattr(type(net.last_block), "class_attention", None)
    assert torch.equal(net(x), logits)
    with pytest.raises(TypeError):
        net(x, with_attention=True)


@pytest.mark.parametrize("h, w", [(30, 32), (32, 30)])
def test_the_transformer_says_which_images_it_takes(h, w):
    with pytest.raises(ValueError, match=f"images are {h} x {w} pixels; .* multiples of 4: crop"):
        catalog.load(models, "vit_tiny", classes=5, width=2)(torch.zeros(1, 3, h, w))


def test_the_transformer_compiled_is_the_plain_one():
    torch.compiler.reset()
    net = catalog.load(models, "vit_tiny", classes=5, width=2)
    compiled, x = torch.compile(net, backend="aot_eager"), torch.randn(2, 3, 32, 32)
    grads = []
    for forward in (net, compiled):
        net.zero_grad()
        logits, attention = forward(x, with_attention=True)
        logits.square().sum().backward()
        grads.append([logits.detach(), attention, *(p.grad for p in net.parameters())])
    assert_close(*grads)
    assert_close(compiled(x), net(x))


def test_wide_resnet_has_a_momentum_of_0_9_at_the_end_alone():
    net = catalog.load(models, "wrn16_8", classes=5, width=1)
    assert net.bn1.momentum == 0.9 and net.layer1[0].bn1.momentum == 0.1


def test_resnext_has_4_groups_of_channels():
    net = catalog.load(models, "resnext29_4_24", classes=5, width=4)
    assert net.stage_1[0].conv_conv.weight.shape == (16, 4, 3, 3)


def test_resnet18_is_torchvisions():
    from torchvision.models import resnet18
    net, theirs = catalog.load(models, "resnet18", classes=7), resnet18(num_classes=7)
    theirs.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 40, 40)
    assert_close(net.eval()(x), theirs.eval()(x))


def test_preactresnet_with_the_authors_weights_is_its_definition_in_functions(vectors):
    v = {k[6:]: t.double() for k, t in vectors("sage_step").items() if k.startswith("param:")}
    x, net = vectors("sage_step")["x"].double(), PreActResNet((1, 1, 1, 1), 10, 4).double()
    net.load_state_dict(v)
    assert_close(net(x), oracles.preactresnet(v, x))


@pytest.mark.parametrize("h, w", [(32, 32), (24, 40)])
@pytest.mark.parametrize("name", NAMES)
def test_every_network_keeps_the_contract(name, h, w):
    options = {"width": 8} if "width" in catalog.defaults(models, name) else {}
    net = catalog.load(models, name, classes=7, **options)
    assert all(isinstance(stage, torch.nn.Module) for stage in net.stages) and len(net.stages) >= 1
    assert net(torch.randn(2, 3, h, w)).shape == (2, 7)


def test_pooling_is_the_mean_whatever_the_size():
    net = catalog.load(models, "preactresnet18", classes=3, width=2).eval()
    x = torch.randn(2, 3, 32, 32)
    h = net.conv1(x)
    for stage in net.stages:
        h = stage(h)
    assert_close(net(x), net.linear(torch.nn.functional.avg_pool2d(h, 4).flatten(1)))
