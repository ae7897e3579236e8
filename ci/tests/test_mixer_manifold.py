"""Manifold Mixup as a Mixer: a call tells the network where to mix in its next forward."""
import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from sagelib import ManifoldMixup
from sagelib.losses import one_hot
from sagelib.methods import manifold_mixup, mixup


def test_it_mixes_in_the_next_forward_and_only_there(tiny, images):
    net, (x, t) = tiny().train(), images
    mix, places = ManifoldMixup(num_classes=10, seed=0).bind(net), set()
    for _ in range(12):
        twin = copy.deepcopy(net)
        ManifoldMixup(num_classes=10).bind(twin).unbind()
        for hook in [k for stage in twin.stages for k in stage._forward_hooks]:
            twin[2]._forward_hooks.pop(hook, None)
            twin[3]._forward_hooks.pop(hook, None)
        mixed, y = mix(x, t)
        inside = mix.method.pending is not None
        place = 0 if not inside else 1 + mix.method.attached.index(mix.method.pending[0])
        places.add(place)
        lam = torch.ones(3)
        lam[place] = mix.last.share[0]
        expected = manifold_mixup.forward(twin, x, mix.last.pair, lam)
        net.eval()
        net(x)  # a forward that does not train passes by
        net.train()
        assert (mix.method.pending is not None) == inside
        assert_close(net(mixed), expected)
        assert mix.method.pending is None
        assert_close(y, mixup.mix(x, one_hot(t, 10), mix.last.pair, mix.last.share).y)
    assert places == {0, 1, 2}
    mix.unbind()
    assert not net[2]._forward_hooks and not net[3]._forward_hooks


@pytest.mark.parametrize("wrap", [lambda net: net, torch.compile], ids=["plain", "compiled"])
def test_a_copy_of_a_network_is_not_mixed_in(wrap, tiny, images):
    """A moving average of the weights is a deep copy, hooks and all."""
    net = tiny().train()
    mix = ManifoldMixup(num_classes=10, seed=0).bind(wrap(net))
    mix(*images)
    while mix.method.pending is None:
        mix(*images)
    average = copy.deepcopy(net)
    assert_close(average(images[0]), tiny().train()(images[0]))
    assert mix.method.pending is not None  # the network itself has not been run yet
    mix.unbind()
    with pytest.raises(RuntimeError, match=r"call \.bind"):
        mix(*images)


def test_data_parallel_is_refused(tiny):
    with pytest.raises(ValueError, match="use DistributedDataParallel"):
        ManifoldMixup(num_classes=10, seed=0).bind(nn.DataParallel(tiny()))


def test_a_network_without_stages_is_told_where(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 10)).train()
    mix = ManifoldMixup(num_classes=10, seed=0).bind(net, stages=["1", net[2]])
    for _ in range(4):
        mix.loss(*images).backward()
    with (warnings.catch_warnings(action="error"),
          pytest.raises(UserWarning, match="has not been run")):
        for _ in range(10):
            mix(*images)


def test_stages_in_evaluation_mode_are_mixed_all_the_same(tiny, images):
    net = tiny().train()
    for stage in net.stages:
        stage.eval()
    mix, inside = ManifoldMixup(10, seed=0).bind(net), 0
    for _ in range(10):
        loss = mix.loss(*images)
        if torch.equal(mix.last.x, images[0]):
            inside += 1
            assert abs(loss - F.cross_entropy(tiny().train()(images[0]), mix.last.y)) > 1e-4
    assert inside >= 3


def test_a_network_in_evaluation_mode_is_refused(tiny, images):
    mix = ManifoldMixup(10, seed=0).bind(tiny().eval())
    with pytest.raises(RuntimeError, match=r"network in training mode.*call net\.train\(\)"):
        for _ in range(20):
            mix.loss(*images)
    assert mix.method.pending is None


def test_a_stage_may_give_a_tuple(images):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, z):
            return self.conv(z), "more"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = Several(), nn.Linear(4, 10)

        def forward(self, z):
            return self.head(self.block(z)[0].mean((2, 3)))

    net, (x, t) = Net().train(), images
    mix = ManifoldMixup(10, seed=1, stages=1).bind(net, stages="block")
    while torch.equal((mixed := mix(x, t))[0], x) is False:
        pass
    h, w = net.block.conv(x), mix.last.share[0]
    assert_close(net(x), net.head((w * h + (1 - w) * h[mix.last.pair]).mean((2, 3))))
    assert mixed[1].shape == (6, 10)


def too_few_stages(tiny, images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    ManifoldMixup(num_classes=10).bind(net[::2])


def stages_of_another_network(tiny, images):
    ManifoldMixup(10).bind(tiny(), stages=[nn.ReLU(), nn.ReLU()])


def another_number_of_stages(tiny, images):
    mix = ManifoldMixup(10, seed=0).bind(tiny().train())
    mix.method.stages = 3
    mix(*images)


@pytest.mark.parametrize("wrong, message", [
    (too_few_stages, r"needs as many; this network has 0: .*'0', '2'"),
    (stages_of_another_network, "a stage must be a module of the network"),
    (another_number_of_stages, "stages is 3, and bind was told 2")])
def test_wrong_stages_are_one_clear_error(wrong, message, tiny, images):
    with pytest.raises(ValueError, match=message):
        wrong(tiny, images)
