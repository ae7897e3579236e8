"""Readings of the paper's attacks: by value against loops over images, and against the evaluation
under the conventions where the two mean the same."""
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sagelib.bench.attack_distances import distances
from sagelib.datasets import shapes
from sagelib.evaluate import attack_readings as readings
from sagelib.evaluate import robustness
from sagelib.evaluate.robustness import AttackSpace, Convention
from sagelib.models import preactresnet18


@pytest.fixture(scope="module")
def networks():
    """Three untrained networks in evaluation mode: their gradients differ and are not 0."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(preactresnet18.build(10, width=4).eval())
    return found


@pytest.fixture(scope="module")
def test():
    return shapes.load(train=10, test=60)[1]


def pixels_and_labels(data, n=8):
    return data.images[:n].float() / 255, data.labels[:n]


def gradient_of_one(net, data, image, label):
    x = image.clone().requires_grad_()
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
    F.cross_entropy(net(((x - mean) / std)[None]), label[None]).backward()
    return x.grad


def slow_step(kind, image, grad, unit, budget, length):
    """One value after another; unit: what 1 of the budget's unit is in pixels, by channel."""
    out, total = image.clone(), 0.0
    for c, i, j in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
        total += float(grad[c, i, j] * unit[c])**2
    for c, i, j in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
        slope = float(grad[c, i, j] * unit[c])
        step = (slope > 0) - (slope < 0) if kind == "fgsm" else slope
        if kind == "fgm" and length == "image":
            step /= total**0.5
        out[c, i, j] = min(max(float(image[c, i, j]) + float(unit[c]) * budget * step, 0), 1)
    return out


UNITS = {"pixels": (1, 1, 1), "[-1, 1]": (0.5, 0.5, 0.5), "normalised": None}


@pytest.mark.parametrize("unit", readings.UNITS)
@pytest.mark.parametrize("kind, budget, length", [
    ("fgsm", 8 / 255, "image"), ("fgm", 0.5, "image"), ("fgm", 0.5, "none")])
def test_a_step_is_that_of_a_loop(kind, budget, length, unit, networks, test):
    pixels, y = pixels_and_labels(test, 2)
    grad = torch.stack([gradient_of_one(networks[0], test, *pair)
                        for pair in zip(pixels, y, strict=True)])
    scale = readings.unit_in_pixels(unit, test.std)
    want = UNITS[unit] or test.std
    assert_close(scale.flatten(), torch.tensor(want, dtype=torch.float32))
    found = readings.attacked(kind, pixels, grad, scale, budget, length)
    for image, g, moved in zip(pixels, grad, found, strict=True):
        assert_close(moved, slow_step(kind, image, g, want, budget, length))


def test_a_batch_that_shares_a_length_moves_by_it_together(networks, test):
    pixels, y = pixels_and_labels(test)
    inside = 0.25 + pixels / 2  # clamping changes nothing
    grad = torch.stack([gradient_of_one(networks[0], test, *pair)
                        for pair in zip(inside, y, strict=True)])
    one = readings.unit_in_pixels("pixels", test.std)
    step = readings.attacked("fgm", inside, grad, one, 0.5, "batch") - inside
    assert_close(step.norm(), torch.tensor(0.5))
    assert_close(step / 0.5, grad / grad.norm(), rtol=1e-3, atol=1e-6)


def test_several_networks_give_the_mean_of_their_gradients_each_with_its_prediction(
        networks, test):
    pixels, y = pixels_and_labels(test, 4)
    spaces = [AttackSpace(net, test.mean, test.std, Convention()) for net in networks]
    found = readings.gradients(spaces, pixels, y)
    for k, image in enumerate(pixels):
        predicted = [space(image[None]).argmax() for space in spaces]
        for label, targets in (("true", [y[k]] * 3), ("predicted", predicted)):
            each = [gradient_of_one(net, test, image, target)
                    for net, target in zip(networks, targets, strict=True)]
            assert_close(found[label][k], sum(each) / 3, rtol=1e-4, atol=1e-7)
    assert not torch.equal(found["true"], found["predicted"])


def test_on_itself_with_the_true_label_it_is_the_evaluation_under_the_conventions(networks, test):
    found = readings.evaluate(networks[0], test, batch=20, seed=3)
    usual = robustness.evaluate(networks[0], test, batch=20, seed=3)
    assert found["clean"] == usual["clean"]
    for unit in ("pixels", "normalised"):
        other = usual[Convention(unit, True).name]
        assert found["gaussian"][unit] == other["gaussian"]
        for kind in ("fgsm", "fgm"):
            assert found[kind][readings.name("own", "true", unit)] == other[kind]
    assert {name.split(",")[0] for name in found["fgsm"]} == {"own"}


def test_every_reading_is_measured_and_attacks_by_hand_give_the_same(networks, test):
    net, another, *_ = networks
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = readings.evaluate(net.train(), test, another, networks[1:], batch=len(test))
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net.eval()
    assert len(found["fgsm"]) == 3 * 2 * 3 and len(found["fgm"]) == 3 * 2 * 5
    pixels, y = test.images.float() / 255, test.labels
    seen = [AttackSpace(n, test.mean, test.std, Convention()) for n in (net, another)]
    grad = robustness.loss_gradient(seen[1], pixels, y)[1]
    moved = (pixels + 4 / 255 * grad.sign()).clamp(0, 1)
    by_hand = 100 * float((seen[0](moved).argmax(1) == y).float().mean())
    assert found["fgsm"][readings.name("another", "true", "[-1, 1]")] == pytest.approx(by_hand)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = (pixels + 0.01 * noise).clamp(0, 1)
    by_hand = 100 * float((seen[0](noisy).argmax(1) == y).float().mean())
    assert found["gaussian"]["standard deviation"] == pytest.approx(by_hand)


@pytest.mark.parametrize("words", [("mine", "true", "pixels"), ("own", "wrong", "pixels"),
                                   ("own", "true", "grey levels"),
                                   ("own", "true", "pixels", "set")])
def test_an_unknown_word_of_a_reading_is_refused_with_the_known_ones(words):
    with pytest.raises(ValueError, match=r"unknown '.*'; a reading knows '"):
        readings.name(*words)
    with pytest.raises(ValueError, match="unknown unit 'metres'; it must be one of 'pixels'"):
        readings.unit_in_pixels("metres", 0.2)


def outcome(own, another, noise):
    """An evaluation in which every reading of a source has one accuracy; clean: 80."""
    found = {"clean": 80.0, "fgsm": {}, "fgm": {},
             "gaussian": {unit: noise for unit in readings.UNITS}}
    for source, accuracy in (("own", own), ("another", another)):
        for label in readings.LABELS:
            for unit, length in readings.FGM:
                found["fgsm"][readings.name(source, label, unit)] = accuracy
                found["fgm"][readings.name(source, label, unit, length)] = accuracy
    found["fgsm"][readings.name("another", "true", "normalised")] += 4
    return found


def evaluated(*outcomes):
    asked = {"linf": 8 / 255, "l2": 0.5, "variance": 0.01, "images": 100}
    return [{"evaluations": [{"what": "attack_readings", "results": each, "parameters": asked}]}
            for each in outcomes]


def test_distances_are_between_shares_of_the_clean_accuracy_nearest_first():
    runs = {"mixup": evaluated(outcome(20, 60, 40), outcome(20, 68, 40)),
            "sage": [*evaluated(outcome(20, 64, 40)), {"evaluations": []}],
            "cutmix": [{}], "unprinted": evaluated(outcome(1, 1, 1))}
    clean = {"mixup": 100.0, "sage": 50.0, "cutmix": 90.0}
    printed = {"fgsm": {"mixup": 85.0, "sage": 42.5}, "fgm": {"mixup": 80.0, "sage": 45.0},
               "gaussian": {"mixup": 50.0, "sage": 26.0}}
    found = distances(runs, printed, clean)
    assert len(found) == 2 * 2 * 5 and found[0].reading == "another, true label, normalised"
    # mixup 68 / 80 = 85 %, sage 68 / 80 = 85 %; mixup 80 %, sage 80 %; 50 %
    for kind, want in (("fgsm", (0, 0)), ("fgm", (0, 10)), ("gaussian", (0, 2))):
        assert found[0].points[kind] == pytest.approx(dict(zip(("mixup", "sage"), want,
                                                               strict=True)))
    assert found[0].words("fgm") == "5.0 (10.0)"
    assert found[0].mean == pytest.approx((0 + 5 + 1) / 3)
    assert {d.source for d in found[10:]} == {"own"}
    assert distances({"cutmix": [{}]}, printed, clean) == []
