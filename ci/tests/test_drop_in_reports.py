"""What users of other mixing libraries reported as bugs there, tried on this one: each row was wrong here too."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from sagelib import SAGE, CoMixup, CutMix, ManifoldMixup, Mixup, PuzzleMix, SaliencyMix, catalog, methods
from sagelib.losses import LOSSES

ALL = (SAGE, Mixup, CutMix, ManifoldMixup, SaliencyMix, PuzzleMix, CoMixup)
every = pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)


# one logit for two classes


class TwoLogits(nn.Module):
    """The logits -z/2 and z/2 of a network with one logit z: the same probabilities by softmax as by sigmoid."""

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
        assert kind not in (SAGE, PuzzleMix, CoMixup) or mix.last.saliency.amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", catalog.names(methods))
def test_every_method_trains_one_logit_as_two(name, tiny, images):
    one, two = tiny(classes=1), TwoLogits(tiny(classes=1))
    y = (images[1] % 2).float()[:, None]
    steps = [catalog.load(methods, name).seed(1).backward(net, images[0], labels)
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
    for wrong, message in ((t + 1, "from 0 to 1, not 1 to 2"), (-t.float(), "not -1 to"), (t[:5], r"\(6, 1\), not"),
                           (torch.rand(6, 2), r"\(6, 2\)"), (t * torch.nan, "not nan")):
        with pytest.raises(ValueError, match=f"num_classes=1 is one logit for two classes: .*{message}"):
            Mixup(1)(x, wrong)


def test_a_network_and_labels_that_do_not_fit_are_one_clear_error(tiny, images):
    with pytest.raises(ValueError, match=r"gives \(6, 1\); with num_classes=10 .*one logit for .* num_classes=1"):
        SAGE(10).bind(tiny(classes=1))(*images)
    with pytest.raises(ValueError, match=r"gives \(6, 10\); with num_classes=1 it must give logits \(B, 1\)$"):
        SAGE(1).bind(tiny())(images[0], images[1] % 2)
    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        with pytest.raises(ValueError, match="over one logit is always 0; for num_classes=1 give"):
            SAGE(1, loss=loss)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"logits \(6, 1\), the labels are \(6, 10\): it must have"):
            loss(torch.zeros(6, 1), torch.zeros(6, 10))
