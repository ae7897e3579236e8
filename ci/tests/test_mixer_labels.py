"""Targets of a Mixer and the soft labels that it makes of them; one logit for two classes; batches
that are refused."""
import pytest
import torch
import torch.nn.functional as F
from mixers import GUIDED, every
from steps import gradients, train_step
from torch import nn
from torch.testing import assert_close

from sagelib import SAGE, CutMix, ManifoldMixup, Mixup, catalog, methods
from sagelib.losses import LOSSES, one_hot
from sagelib.methods import puzzlemix, rmix, sage
from sagelib.mixer import soft_labels

SOFT = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)).softmax(1)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.uint16, torch.int16, torch.int32,
                                   torch.int64])
def test_class_indices_of_any_integer_type_become_one_hot_labels(dtype, images):
    x, t = images
    assert torch.equal(Mixup(10, alpha=0)(x, t.to(dtype))[1], one_hot(t, 10))
    assert torch.equal(Mixup(10, seed=0)(x, t.to(dtype))[1], Mixup(10, seed=0)(x, t)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_soft_labels_stay_and_are_not_smoothed(smoothing, dtype, images):
    mix = Mixup(10, alpha=0, label_smoothing=smoothing)
    assert_close(mix(images[0], SOFT.to(dtype))[1], SOFT)


def test_class_indices_are_smoothed(images):
    x, t = images
    y = Mixup(num_classes=10, alpha=0, label_smoothing=0.1)(x, t)[1]
    assert_close(y.max(1).values, torch.full((6,), 0.91))
    assert torch.equal(y.argmax(1), t)


@pytest.mark.parametrize("target, classes", [
    (torch.arange(6), 10), (torch.rand(6, 10), 10), (torch.arange(6) % 2, 1), (torch.rand(6), 1)])
def test_labels_are_made_without_a_graph_break(target, classes, images):
    torch.compiler.reset()
    make = torch.compile(soft_labels, backend="eager", fullgraph=True)
    assert_close(make(images[0], target, classes, 0.1),
                 soft_labels(images[0], target, classes, 0.1))


# one logit for two classes

class TwoLogits(nn.Module):
    """The logits -z/2 and z/2 of a network with one logit z: the same probabilities by softmax as
    by sigmoid."""

    def __init__(self, net):
        super().__init__()
        self.net, self.stages = net, net.stages

    def forward(self, x, with_attention=False):
        if with_attention:
            z, attention = self.net(x, with_attention=True)
            return torch.cat([-z / 2, z / 2], 1), attention
        z = self.net(x)
        return torch.cat([-z / 2, z / 2], 1)


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
        assert kind not in GUIDED or mix.last.saliency.amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", catalog.names(methods))
def test_every_method_trains_one_logit_as_two(name, tiny, images):
    one, two = tiny(classes=1), TwoLogits(tiny(classes=1))
    y = (images[1] % 2).float()[:, None]
    steps = [train_step(catalog.load(methods, name).seed(1), net, images[0], labels)
             for net, labels in ((one, y), (two, torch.cat([1 - y, y], 1)))]
    assert_close(*steps)
    assert_close(gradients(one), gradients(two))


FORMS = {"int64": lambda t: t, "int32": lambda t: t.int(), "a column": lambda t: t[:, None],
         "float32": lambda t: t.float(), "a float64 column": lambda t: t.double()[:, None],
         "bool": lambda t: t.bool()}


@pytest.mark.parametrize("form", FORMS)
def test_targets_of_one_logit_are_0_and_1_in_any_form(form, images):
    t = images[1] % 2
    y = Mixup(1, alpha=0)(images[0], FORMS[form](t))[1]
    assert torch.equal(y, t.float()[:, None]) and y.dtype == torch.float32


def test_labels_of_one_logit_are_smoothed_soft_and_mixed(images):
    x, t = images[0], images[1] % 2
    expected = t.float()[:, None]
    assert_close(Mixup(1, alpha=0, label_smoothing=0.1)(x, t)[1], 0.9 * expected + 0.05)
    assert_close(Mixup(1, alpha=0)(x, torch.full((6,), 0.3))[1], torch.full((6, 1), 0.3))
    mix = CutMix(1, seed=0)
    y = mix(x, t)[1]
    share = mix.last.share[:, None]
    assert_close(y, share * expected + (1 - share) * expected[mix.last.pair])
    assert ((y > 0) & (y < 1)).any()


@pytest.mark.parametrize("wrong, message", [
    (lambda t: t + 1, "from 0 to 1, not 1 to 2"), (lambda t: -t.float(), "not -1 to"),
    (lambda t: t[:5], r"\(6, 1\), not"), (lambda t: torch.rand(6, 2), r"\(6, 2\)"),
    (lambda t: t * torch.nan, "not nan")])
def test_wrong_targets_of_one_logit_are_one_clear_error(wrong, message, images):
    said = f"num_classes=1 is one logit for two classes: .*{message}"
    with pytest.raises(ValueError, match=said):
        Mixup(1)(images[0], wrong(images[1] % 2))


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()],
                         ids=["function", "module"])
def test_cross_entropy_over_one_logit_is_refused(loss):
    with pytest.raises(ValueError, match="over one logit is always 0; for num_classes=1 give"):
        SAGE(1, loss=loss)


# refused

@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_one_logit_and_labels_of_ten_classes_are_one_clear_error(loss):
    said = r"logits \(6, 1\), the labels are \(6, 10\): it must have"
    with pytest.raises(ValueError, match=said):
        loss(torch.zeros(6, 1), torch.zeros(6, 10))


@pytest.mark.parametrize("classes, outputs, message", [
    (7, 10, "num_classes=7 it must give logits"),
    (10, 1, r"gives \(6, 1\); with num_classes=10 .*one logit for .* num_classes=1"),
    (1, 10, r"gives \(6, 10\); with num_classes=1 it must give logits \(B, 1\)$")])
def test_a_network_with_another_number_of_outputs_is_one_clear_error(classes, outputs, message,
                                                                     tiny, images):
    target = images[1] % max(2, classes) if classes < 10 else images[1]
    with pytest.raises(ValueError, match=message):
        SAGE(classes).bind(tiny(classes=outputs))(images[0], target)


@pytest.mark.parametrize("method", [sage.Sage(), puzzlemix.PuzzleMix(), rmix.RMix()],
                         ids=["SAGE", "PuzzleMix", "RMix"])
def test_a_method_names_labels_that_are_not_soft_and_a_network_that_is_missing(method, tiny,
                                                                               images):
    with pytest.raises(ValueError, match=r"labels must be soft, floats of shape \(B, K\), not "
                                         r"torch.int64 \(6,\)"):
        method.loss(tiny(), *images)
    with pytest.raises(ValueError, match=r"looks through the network: give it, mix\(x, y, net\)"):
        method.mix(images[0], one_hot(images[1], 10))


BATCHES = {
    "a class index of 10 or more": (lambda x, t: (x, t + 5), "from 0 to 9, not"),
    "too few targets": (lambda x, t: (x, t[:5]), r"class indices \(6,\)"),
    "too few classes": (lambda x, t: (x, torch.rand(6, 9)), r"soft labels \(6, 10\)"),
    "boolean targets": (lambda x, t: (x, t > 3), "torch.bool"),
    "images as bytes": (lambda x, t: (x.byte(), t), "normalised floats"),
    "one image": (lambda x, t: (x[0], t), "normalised floats"),
    "no image": (lambda x, t: (x[:0], t[:0]), "normalised floats"),
    "targets elsewhere": (lambda x, t: (x, t.to("meta")), "images are on cpu, targets on meta"),
    "images of NumPy": (lambda x, t: (x.numpy(), t), "images must be a tensor, not a ndarray"),
    "a list of targets": (lambda x, t: (x, t.tolist()), "targets must be a tensor, not a list")}


@pytest.mark.parametrize("wrong", BATCHES)
def test_a_wrong_batch_is_one_clear_error(wrong, tiny, images):
    make, message = BATCHES[wrong]
    with pytest.raises(TypeError if "a tensor" in message else ValueError, match=message):
        SAGE(num_classes=10).bind(tiny())(*make(*images))


def test_values_are_still_checked_where_nothing_is_compiled(images):
    with pytest.raises(ValueError, match="class indices must be from 0 to 9, not"):
        Mixup(10)(images[0], images[1] + 10)


def test_a_call_under_inference_mode_is_one_clear_error(tiny, images):
    mix = SAGE(num_classes=10).bind(tiny())
    with pytest.raises(RuntimeError, match="inference_mode"), torch.inference_mode():
        mix(*images)
