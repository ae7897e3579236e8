"""Networks: layer for layer, by count and by the authors' own logits; the contract for all in the
catalogue."""
import pytest
import torch
import torch.nn.functional as F
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


def test_wide_resnet_is_its_definition_in_functions():
    """Stride on the second convolution, biases, the shortcut on the raw input, no dropout; momentum
    0.9 at the end."""
    net = catalog.load(models, "wrn16_8", classes=5, width=1).double()
    v, x = net.state_dict(), torch.randn(3, 3, 16, 24, dtype=torch.float64)

    def norm(z, name):
        return F.relu(
            F.batch_norm(z, None, None, v[f"{name}.weight"], v[f"{name}.bias"], training=True))

    def conv(z, name, stride=1, padding=1):
        return F.conv2d(z, v[f"{name}.weight"], v[f"{name}.bias"], stride, padding)

    h = conv(x, "conv1")
    for k, stage_stride in enumerate((1, 2, 2), 1):
        for n in range(2):
            block, stride = f"layer{k}.{n}", stage_stride if n == 0 else 1
            out = conv(norm(h, f"{block}.bn1"), f"{block}.conv1")
            out = conv(norm(out, f"{block}.bn2"), f"{block}.conv2", stride)
            h = out + (conv(h, f"{block}.shortcut.0", stride, 0)
                       if f"{block}.shortcut.0.weight" in v else h)
    assert_close(net(x),
                 F.linear(norm(h, "bn1").mean((2, 3)), v["linear.weight"], v["linear.bias"]))
    assert net.bn1.momentum == 0.9 and net.layer1[0].bn1.momentum == 0.1


def test_resnext_is_its_definition_in_functions():
    net = catalog.load(models, "resnext29_4_24", classes=5, width=4).double()
    v, x = net.state_dict(), torch.randn(3, 3, 16, 24, dtype=torch.float64)

    def norm(z, name):
        return F.batch_norm(z, None, None, v[f"{name}.weight"], v[f"{name}.bias"], training=True)

    def conv(z, name, stride=1, padding=0, groups=1):
        return F.conv2d(z, v[f"{name}.weight"], None, stride, padding, groups=groups)

    h = F.relu(norm(conv(x, "conv_1_3x3", padding=1), "bn_1"))
    for k, stage_stride in enumerate((1, 2, 2), 1):
        for n in range(3):
            block, stride = f"stage_{k}.{n}", stage_stride if n == 0 else 1
            out = F.relu(norm(conv(h, f"{block}.conv_reduce"), f"{block}.bn_reduce"))
            out = F.relu(norm(conv(out, f"{block}.conv_conv", stride, 1, 4), f"{block}.bn"))
            out = norm(conv(out, f"{block}.conv_expand"), f"{block}.bn_expand")
            if n == 0:
                h = norm(conv(h, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            h = F.relu(out + h)
    assert_close(net(x), F.linear(h.mean((2, 3)), v["classifier.weight"], v["classifier.bias"]))
    assert net.stage_1[0].conv_conv.weight.shape == (16, 4, 3, 3)


def test_resnet18_is_torchvisions():
    from torchvision.models import resnet18
    net, theirs = catalog.load(models, "resnet18", classes=7), resnet18(num_classes=7)
    theirs.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 40, 40)
    assert_close(net.eval()(x), theirs.eval()(x))


def test_preactresnet_is_its_definition_in_functions(vectors):
    """The authors' weights through the definition written out, against the module, in float64 and
    training mode."""
    v = {k[6:]: t.double() for k, t in vectors("sage_step").items() if k.startswith("param:")}

    def norm(x, name):
        return F.relu(
            F.batch_norm(x, None, None, v[f"{name}.weight"], v[f"{name}.bias"], training=True))

    x = h = vectors("sage_step")["x"].double()
    h = F.conv2d(x, v["conv1.weight"], padding=1)
    for k, stride in enumerate((1, 2, 2, 2), 1):
        block = f"layer{k}.0"
        a = norm(h, f"{block}.bn1")
        out = F.conv2d(a, v[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(norm(out, f"{block}.bn2"), v[f"{block}.conv2.weight"], padding=1)
        h = out + (h
                   if stride == 1 else F.conv2d(a, v[f"{block}.shortcut.0.weight"], stride=stride))
    logits = F.linear(F.avg_pool2d(h, 4).flatten(1), v["linear.weight"], v["linear.bias"])
    net = PreActResNet((1, 1, 1, 1), 10, 4).double()
    net.load_state_dict(v)
    assert_close(net(x), logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_keeps_the_contract(name):
    options = {"width": 8} if "width" in catalog.defaults(models, name) else {}
    net = catalog.load(models, name, classes=7, **options)
    assert all(isinstance(stage, torch.nn.Module) for stage in net.stages) and len(net.stages) >= 1
    for h, w in ((32, 32), (24, 40)):
        assert net(torch.randn(2, 3, h, w)).shape == (2, 7)


def test_pooling_is_the_mean_whatever_the_size():
    net = catalog.load(models, "preactresnet18", classes=3, width=2).eval()
    x = torch.randn(2, 3, 32, 32)
    h = net.conv1(x)
    for stage in net.stages:
        h = stage(h)
    assert_close(net(x), net.linear(torch.nn.functional.avg_pool2d(h, 4).flatten(1)))
