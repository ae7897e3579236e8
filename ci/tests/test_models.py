"""Networks: layer for layer, by count and by the authors' own logits; the contract for all in the catalogue."""
import pytest
import torch
from torch.testing import assert_close

from sagelib import catalog, models
from sagelib.models.preactresnet18 import PreActResNet

NAMES = catalog.names(models)


@pytest.mark.parametrize("classes, count", [(10, 11_171_146), (100, 11_217_316)])
def test_preactresnet18_has_the_papers_parameters(classes, count):
    net = catalog.load(models, "preactresnet18", classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count and len(list(net.parameters())) == 54


def test_preactresnet_is_its_definition_in_functions(vectors):
    """The authors' weights through the definition written out, against the module, in float64 and training mode."""
    import torch.nn.functional as F
    v = {k[6:]: t.double() for k, t in vectors("sage_step").items() if k.startswith("param:")}

    def norm(x, name):
        return F.relu(F.batch_norm(x, None, None, v[f"{name}.weight"], v[f"{name}.bias"], training=True))

    x = h = vectors("sage_step")["x"].double()
    h = F.conv2d(x, v["conv1.weight"], padding=1)
    for k, stride in enumerate((1, 2, 2, 2), 1):
        block = f"layer{k}.0"
        a = norm(h, f"{block}.bn1")
        out = F.conv2d(a, v[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(norm(out, f"{block}.bn2"), v[f"{block}.conv2.weight"], padding=1)
        h = out + (h if stride == 1 else F.conv2d(a, v[f"{block}.shortcut.0.weight"], stride=stride))
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
