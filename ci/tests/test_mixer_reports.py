"""What users of other mixing libraries reported as bugs there, tried on this one: each row was
wrong here too."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mixers import ALL, LOOK
from steps import train_step
from torch import nn
from torch.testing import assert_close

from sagelib import (
    SAGE,
    CutMix,
    ManifoldMixup,
    Mixup,
    SaliencyMix,
    catalog,
    datasets,
    methods,
)
from sagelib.evaluate import robustness
from sagelib.losses import LOSSES, one_hot
from sagelib.mixer import soft_labels

every = pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)


# one logit for two classes


class TwoLogits(nn.Module):
    """The logits -z/2 and z/2 of a network with one logit z: the same probabilities by softmax as
    by sigmoid."""

    def __init__(self, net):
        super().__init__()
        self.net, self.stages = net, net.stages

    def forward(self, x):
        z = self.net(x)
        return torch.cat([-z / 2, z / 2], 1)


def gradients(net):
    return [p.grad for p in net.parameters()]


@every
@pytest.mark.parametrize("loss", list(LOSSES))
def test_one_logit_is_two_logits(kind, loss, tiny, images):
    x, t = images[0], images[1] % 2
    one, two = tiny(classes=1), TwoLogits(tiny(classes=1))
    mix, slow = kind(1, seed=0, loss=loss).bind(one), kind(2, seed=0, loss=loss).bind(two)
    for _ in range(2):
        found, expected = mix.loss(x, t), slow.loss(x, t)
        assert_close(found, expected)
        found.backward()
        expected.backward()
    assert_close(gradients(one), gradients(two))
    if kind is not ManifoldMixup:
        (mixed, y), (wanted, labels) = mix(x, t), slow(x, t)
        assert_close(mixed, wanted)
        assert_close(y, labels[:, 1:])
        assert kind not in LOOK or mix.last.saliency.amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", catalog.names(methods))
def test_every_method_trains_one_logit_as_two(name, tiny, images):
    one, two = tiny(classes=1), TwoLogits(tiny(classes=1))
    y = (images[1] % 2).float()[:, None]
    steps = [train_step(catalog.load(methods, name).seed(1), net, images[0], labels)
             for net, labels in ((one, y), (two, torch.cat([1 - y, y], 1)))]
    assert_close(*steps)
    assert_close(gradients(one), gradients(two))


def test_targets_of_one_logit_are_0_and_1_in_any_form(images):
    x, t = images[0], images[1] % 2
    expected = t.float()[:, None]
    for target in (t, t.int(), t[:, None], t.float(), t.double()[:, None], t.bool()):
        y = Mixup(1, alpha=0)(x, target)[1]
        assert torch.equal(y, expected) and y.dtype == torch.float32
    assert_close(Mixup(1, alpha=0, label_smoothing=0.1)(x, t)[1], 0.9 * expected + 0.05)
    assert_close(Mixup(1, alpha=0)(x, torch.full((6,), 0.3))[1], torch.full((6, 1), 0.3))
    mix = CutMix(1, seed=0)
    y = mix(x, t)[1]
    share = mix.last.share[:, None]
    assert_close(y, share * expected + (1 - share) * expected[mix.last.pair])
    assert ((y > 0) & (y < 1)).any()
    for wrong, message in (
        (t + 1, "from 0 to 1, not 1 to 2"),
        (-t.float(), "not -1 to"),
        (t[:5], r"\(6, 1\), not"),
        (torch.rand(6, 2), r"\(6, 2\)"),
        (t * torch.nan, "not nan"),
    ):
        with pytest.raises(ValueError, match="num_classes=1 is one logit for two classes: "
                                             f".*{message}"):
            Mixup(1)(x, wrong)


def test_a_network_and_labels_that_do_not_fit_are_one_clear_error(tiny, images):
    with pytest.raises(ValueError, match=r"gives \(6, 1\); with num_classes=10 .*one logit for .* "
                                         r"num_classes=1"):
        SAGE(10).bind(tiny(classes=1))(*images)
    with pytest.raises(ValueError, match=r"gives \(6, 10\); with num_classes=1 it must give "
                                         r"logits \(B, 1\)$"):
        SAGE(1).bind(tiny())(images[0], images[1] % 2)
    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        with pytest.raises(ValueError, match="over one logit is always 0; for num_classes=1 give"):
            SAGE(1, loss=loss)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"logits \(6, 1\), the labels are \(6, 10\): it must "
                                             r"have"):
            loss(torch.zeros(6, 1), torch.zeros(6, 10))


# lazy layers, which have no shape before their first forward


def lazy():
    torch.manual_seed(0)
    return nn.Sequential(nn.LazyConv2d(6, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(10))


@every
@pytest.mark.parametrize("compiled", [False, True])
def test_a_call_may_be_the_first_forward_of_lazy_layers(kind, compiled, images):
    torch.compiler.reset()
    net = lazy()
    bound = torch.compile(net, backend="eager") if compiled else net
    where = {"stages": ["0", "2"]} if kind is ManifoldMixup else {}
    x, y = kind(10, seed=0).bind(bound, **where)(*images)
    if kind in LOOK:
        assert torch.equal(net[1].running_mean, torch.zeros(6)) and net[1].num_batches_tracked == 0
        again = kind(10, seed=0).bind(copy.deepcopy(net))(*images)
        assert_close(again, (x, y))
        assert not net[1]._forward_pre_hooks
    F.cross_entropy(bound(x), y).backward()
    assert net[1].num_batches_tracked == 1
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["sage", "comixup"])
def test_a_method_of_the_catalogue_may_run_lazy_layers_first(name, images):
    net, method = lazy(), catalog.load(methods, name, bn="batch").seed(0)
    method.mix(images[0], one_hot(images[1], 10), net)
    assert net[1].num_batches_tracked == 0 and net[1].track_running_stats
    assert type(net[1]) is nn.BatchNorm2d and net(images[0]).shape == (6, 10)


# segments that are recomputed


class Segments(nn.Module):
    """The tiny network, whose convolution and BatchNorm are recomputed in the backward pass."""

    def __init__(self, net, reentrant):
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.net[:3], x, use_reentrant=self.reentrant)
        return self.net[3:](x)


USES = {
    **{
        f"{kind.__name__}, {form}": lambda net, x, t, kind=kind, form=form: getattr(
            kind(10).bind(net), form)(x, t)
        for kind in LOOK
        for form in ("__call__", "loss")
    }, "GuidedMixup": lambda net, x, t: catalog.load(methods, "guidedmixup", source="gradient").mix(
        x, one_hot(t, 10), net), "KeepAugment": lambda net, x, t: train_step(
            catalog.load(methods, "keepaugment"), net, x, one_hot(t, 10)),
    "attacks": lambda net, x, t: robustness.evaluate(
        net,
        catalog.load(datasets, "shapes", train=10, test=10)[1]),
}


@pytest.mark.parametrize("use", USES)
def test_reentrant_segments_are_one_clear_error_that_changes_nothing(use, tiny, images):
    net = Segments(tiny(), True)
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    with pytest.raises(RuntimeError,
                       match=r"recomputes a segment .*: use_reentrant=False does$") as caught:
        USES[use](net, *images)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert net.net[1].track_running_stats and all(p.grad is None for p in net.parameters())


def test_segments_without_reentrance_change_nothing(tiny, images):
    one, two = Segments(tiny(norm=False), False), tiny(norm=False)
    for net in (one, two):
        SAGE(10, seed=0).bind(net).loss(*images).backward()
    assert_close(gradients(one), gradients(two))


def test_a_first_step_that_fails_leaves_running_statistics_alone(tiny, images):
    net = tiny()
    mix = SAGE(7).bind(net)
    with pytest.raises(ValueError, match="num_classes=7"):
        mix.loss(images[0], images[1] % 7)
    assert net[1].num_batches_tracked == 0 and torch.equal(net[1].running_mean, torch.zeros(6))


# a step that is compiled as a whole


STEPS = {
    "call": lambda mix, net, x, t: (lambda x, y: F.cross_entropy(net(x), y))(*mix(x, t)),
    "loss": lambda mix, net, x, t: mix.loss(x, t),
}


@pytest.mark.parametrize("form", STEPS)
@pytest.mark.parametrize("kind", [Mixup, CutMix, SaliencyMix], ids=lambda c: c.__name__)
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


@pytest.mark.parametrize("target, classes", [
    (torch.arange(6), 10), (torch.rand(6, 10), 10), (torch.arange(6) % 2, 1), (torch.rand(6), 1)])
def test_labels_are_made_without_a_graph_break(target, classes, images):
    torch.compiler.reset()
    make = torch.compile(soft_labels, backend="eager", fullgraph=True)
    assert_close(
        make(images[0], target, classes, 0.1), soft_labels(images[0], target, classes, 0.1)
    )


@pytest.mark.parametrize("kind", [SAGE, SaliencyMix], ids=lambda c: c.__name__)
def test_maps_of_ones_own_make_no_graph_break(kind, images):
    torch.compiler.reset()
    found = []
    for compiled in (True, False):
        mix = kind(10, prob=1.0, saliency=lambda z: z.abs().mean(1))
        step = torch.compile(mix.__call__, backend="eager", fullgraph=True) if compiled else mix
        torch.manual_seed(0)
        found.append(step(*images))
    assert_close(*found)


def test_values_are_still_checked_where_nothing_is_compiled(images):
    with pytest.raises(ValueError, match="class indices must be from 0 to 9, not"):
        Mixup(10)(images[0], images[1] + 10)
