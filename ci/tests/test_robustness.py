"""Perturbations, corruptions and calibration by value: against loops, foolbox, torchmetrics, Pillow
and colorsys."""
import colorsys
import io
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.testing import assert_close

from sagelib.data.batches import Batches
from sagelib.datasets import shapes as shapes_module
from sagelib.evaluate import calibration, corruptions, robustness
from sagelib.evaluate.corruptions import blur, digital, weather
from sagelib.evaluate.robustness import CONVENTIONS, AttackSpace, Convention
from sagelib.methods import vanilla
from sagelib.train import Recipe, fit


@pytest.fixture(scope="module")
def trained():
    from sagelib.models import preactresnet18
    torch.manual_seed(0)
    net, (train, test) = preactresnet18.build(10, width=4), shapes_module.load(train=300, test=100)
    g = torch.Generator().manual_seed(0)
    fit(net, Batches(train, 50, generator=g),
        vanilla.build().seed(0), Recipe(epochs=2, lr=0.1), progress=False)
    return net.eval(), test


def foolbox_attack(net, test, space, clamp, attack, epsilon):
    import foolbox
    seen = AttackSpace(net, test.mean, test.std, Convention(space, clamp))
    z = seen.images(test.images.float() / 255)
    bounds = (0, 1) if space == "pixels" and clamp else (-1e6, 1e6)
    shown = dict(mean=list(test.mean), std=list(test.std), axis=-3) if space == "pixels" else None
    model = foolbox.PyTorchModel(net, bounds=bounds, preprocessing=shown, device="cpu")
    kind = {"fgsm": foolbox.attacks.LinfFastGradientAttack,
            "fgm": foolbox.attacks.L2FastGradientAttack}[attack]
    theirs = kind(random_start=False).run(model, z, test.labels, epsilon=epsilon)
    return seen, z, theirs, 100 * float((model(theirs).argmax(1) == test.labels).float().mean())


@pytest.mark.parametrize("space, clamp", [("pixels", True), ("pixels", False),
                                          ("normalised", False)])
def test_fgsm_is_foolboxs_bit_for_bit_and_fgm_as_accurate(space, clamp, trained):
    net, test = trained
    found = robustness.evaluate(net, test, batch=len(test))[Convention(space, clamp).name]
    seen, z, theirs, accuracy = foolbox_attack(net, test, space, clamp, "fgsm", robustness.LINF)
    _, grad = robustness.loss_gradient(seen, z, test.labels)
    assert torch.equal(seen.real(robustness.fgsm(z, grad, robustness.LINF)), theirs)
    assert found["fgsm"] == pytest.approx(accuracy)
    *_, accuracy = foolbox_attack(net, test, space, clamp, "fgm", robustness.L2)
    assert found["fgm"] == pytest.approx(accuracy)
    assert found["fgsm"] < robustness.evaluate(net, test)["clean"]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda c: c.name)
def test_budgets_are_kept_and_clamped_images_are_real(convention, trained):
    net, test = trained
    noise = torch.randn(test.images.shape, generator=torch.Generator().manual_seed(1))
    seen = AttackSpace(net, test.mean, test.std, convention)
    z = seen.images(test.images.float() / 255)
    _, grad = robustness.loss_gradient(seen, z, test.labels)
    assert (robustness.fgsm(z, grad, 0.3) - z).abs().amax() <= 0.3 + 1e-6
    norms = (robustness.fgm(z, grad, 0.5) - z).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.tensor(.5))
    pixels = seen.real(robustness.gaussian(z, 0.01, noise))
    if convention.space == "normalised":
        mean, std = (torch.tensor(v)[:, None, None] for v in (test.mean, test.std))
        pixels = pixels * std + mean
    assert (pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6) == convention.clamp


def test_gaussian_noise_has_the_stated_variance():
    noisy = robustness.gaussian(torch.zeros(1, 3, 16, 20), 0.01, torch.ones(1, 3, 16, 20))
    assert torch.allclose(noisy, torch.tensor(0.1))


def test_one_forward_and_backward_pass_serve_both_attacks(trained):
    net, test = trained
    passes = []
    hooks = [net.conv1.register_forward_hook(lambda *_: passes.append("forward")),
             net.linear.register_full_backward_hook(lambda *_: passes.append("backward"))]
    robustness.evaluate(net, test, conventions=CONVENTIONS[:1], batch=len(test))
    for hook in hooks:
        hook.remove()
    # clean, and one for each perturbed batch
    assert passes.count("forward") == 4 and passes.count("backward") == 1


def test_evaluation_leaves_the_network_as_it_was(trained):
    net, test = trained
    net.train()
    net.layer1.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    one = robustness.evaluate(net, test, batch=40)
    assert net.training and not net.layer1.training and net.layer2.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    for p, g in zip(net.parameters(), grads, strict=True):
        assert (p.grad is None) == (g is None) and (g is None or torch.equal(p.grad, g))
    assert one == robustness.evaluate(net, test, batch=40)
    net.eval()


@pytest.mark.parametrize("norm, epsilon", [("linf", 8 / 255), ("l2", 0.5)])
def test_pgd_stays_in_the_ball_and_is_the_loop(norm, epsilon, trained):
    net, test = trained
    seen = AttackSpace(net, test.mean, test.std, CONVENTIONS[0])
    z, y = test.images[:20].float() / 255, test.labels[:20]
    found = robustness.pgd(seen, z, y, epsilon, epsilon / 4, 6, norm)
    for n in range(3):
        slow = oracles.pgd(seen, z[n:n + 1], y[n:n + 1], epsilon, epsilon / 4, 6, norm)
        assert torch.allclose(slow[0], found[n], atol=2e-4)
    far = (found - z).flatten(1)
    assert (far.abs().amax(1) if norm == "linf" else far.norm(dim=1)).max() <= epsilon + 1e-6
    start = robustness.pgd(seen, z, y, epsilon, 0.0, 1, norm, torch.Generator().manual_seed(0)) - z
    assert start.abs().amax() <= epsilon + 1e-6 and start.any()


@pytest.mark.parametrize("norm, epsilon", [("linf", 8 / 255), ("l2", 0.5)])
def test_autoattack_stays_in_the_ball_and_fools_the_network(norm, epsilon, trained):
    net, test = trained
    seen = AttackSpace(net, test.mean, test.std, CONVENTIONS[0])
    z, y = test.images[:12].float() / 255, test.labels[:12]
    found = robustness.autoattack(seen, z, y, epsilon, norm, ["apgd-ce"])
    assert found.min() >= 0 and found.max() <= 1
    far = (found - z).flatten(1)
    assert (far.abs().amax(1) if norm == "linf" else far.norm(dim=1)).max() <= epsilon + 1e-5
    right = (seen(z).argmax(1) == y).sum()
    assert (seen(found).argmax(1) == y).sum() < right
    assert torch.equal(found, robustness.autoattack(seen, z, y, epsilon, norm, ["apgd-ce"]))


def test_pgd_leaves_no_more_accuracy_than_fgsm(trained):
    fgsm = robustness.evaluate(*trained)[CONVENTIONS[0].name]["fgsm"]
    assert robustness.evaluate_pgd(*trained, steps=10) <= fgsm + 5


def test_ece_is_torchmetrics_and_the_loop():
    from torchmetrics.classification import MulticlassCalibrationError
    g = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(500, 7, generator=g), torch.randint(7, (500,), generator=g)
    logits[:200, 3], labels[:150] = 9, 3
    theirs = MulticlassCalibrationError(7, n_bins=15, norm="l1")(logits.softmax(1), labels)
    ours = calibration.expected_calibration_error(logits, labels)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)
    p = logits.double().softmax(1)
    want = oracles.calibration_error(p, labels, 15)
    found = calibration.scores(logits, labels)
    assert found["ece"] == pytest.approx(want, abs=1e-9) and sum(found["bins"]["count"]) == 500
    assert found["nll"] == pytest.approx(-p[range(500), labels].log().mean().item())
    with pytest.raises(ValueError, match="calibration needs logits"):
        calibration.scores(logits, labels[:3])


# corruptions

@pytest.fixture(scope="module")
def drawn():
    return shapes_module.make(4, 0.2, 32, 40, seed=5)[0]


def g(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_each_corruption_grows_with_its_severity_and_repeats(name, drawn):
    far = []
    for severity in corruptions.SEVERITIES:
        out = corruptions.corrupt(drawn, name, severity, g())
        assert out.shape == drawn.shape and out.dtype == torch.uint8
        assert torch.equal(out, corruptions.corrupt(drawn, name, severity, g()))
        far.append((out.float() - drawn.float()).square().mean().item())
    # their first severity moves edges the most
    steadily = name not in ("elastic_transform", "pixelate")
    assert far[0] > 0 and (far[4] > far[0] or not steadily)
    assert corruptions.corrupt(drawn[:1], name, 3, g()).shape == drawn[:1].shape


@pytest.mark.parametrize("severity, sigma, photons, share", [
    (1, 0.04, 500, 0.01), (2, 0.06, 250, 0.02), (3, 0.08, 100, 0.03), (4, 0.09, 75, 0.05),
    (5, 0.10, 50, 0.07)])
def test_noise_has_the_stated_size(severity, sigma, photons, share):
    def noisy(name):
        return corruptions.corrupt(torch.full((8, 3, 64, 64), 128, dtype=torch.uint8), name,
                                   severity, g())

    assert noisy("gaussian_noise").float().std() / 255 == pytest.approx(sigma, rel=0.02)
    shot = (128 / 255 / photons) ** 0.5
    assert noisy("shot_noise").float().std() / 255 == pytest.approx(shot, rel=0.03)
    impulses = noisy("impulse_noise")
    assert (impulses != 128).float().mean() == pytest.approx(share, rel=0.1)
    assert (impulses == 0).float().mean() == pytest.approx(share / 2, rel=0.15)


def test_brightness_raises_the_value_of_hsv(drawn):
    x = drawn[:1, :, :6, :6].float() / 255
    found = weather.brightness(x, 0.2, None)
    for i in range(6):
        for j in range(6):
            h, s, v = colorsys.rgb_to_hsv(*x[0, :, i, j].tolist())
            brighter = colorsys.hsv_to_rgb(h, s, min(1, v + 0.2))
            assert found[0, :, i, j].tolist() == pytest.approx(brighter, abs=1e-5)


def test_contrast_keeps_the_mean_and_scales_the_standard_deviation(drawn):
    x = drawn[:1, :, :6, :6].float() / 255
    contrasted = digital.contrast(x, 0.3, None)
    assert torch.allclose(contrasted.mean((2, 3)), x.mean((2, 3)))
    assert torch.allclose(contrasted.std((2, 3)), 0.3 * x.std((2, 3)))


def jpeg(image, quality):
    """An image (3, H, W) as Pillow's JPEG gives it back, an array (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@pytest.mark.parametrize("quality", [80, 65, 40])
def test_jpeg_is_pillows(quality, drawn):
    ours = (digital.jpeg_compression(drawn.float() / 255, quality, None) * 255).round()
    for n in range(2):
        theirs = torch.from_numpy(jpeg(drawn[n], quality)).permute(2, 0, 1).float()
        assert (ours[n].clamp(0, 255) - theirs).abs().mean() < 2
        assert (ours[n].clamp(0, 255) - theirs).abs().mean() < (theirs - drawn[n]).abs().mean() / 8


def test_gaussian_blur_is_scipys(drawn):
    from scipy import ndimage
    x = drawn[:1].float() / 255
    want = ndimage.gaussian_filter(x[0, 0].double().numpy(), 1.3, mode="mirror", truncate=4)
    assert np.allclose(blur.gaussian_blur(x, 1.3)[0, 0].numpy(), want, atol=1e-4)


@pytest.mark.parametrize("call, level", [
    (blur.defocus_blur, (1.5, 0.1)), (blur.glass_blur, (0.4, 1, 2)), (blur.motion_blur, (9, 2.5)),
    (blur.zoom_blur, (1.26,)), (digital.elastic_transform, (0.1, 0.03, 0.03)),
    (digital.pixelate, (0.65,))], ids=lambda value: getattr(value, "__name__", ""))
def test_a_constant_image_stays(call, level):
    flat = torch.full((2, 3, 20, 20), 0.4)
    assert torch.allclose(call(flat, *level, g()), flat, atol=1e-5)


def test_one_pixel_becomes_a_disk_and_a_line():
    dot = torch.zeros(1, 1, 21, 21)
    dot[..., 10, 10] = 1
    disk = blur.defocus_blur(dot, 1.5, 0.1, None)
    # radius 1.5: 3 x 3 pixels
    assert disk.sum() == pytest.approx(1, abs=1e-5) and (disk > 0.1).sum() == 9
    line = blur.motion_blur(dot, 6, 2, g())
    assert line[..., 10, :].sum() > 0 and line.sum() == pytest.approx(1, abs=0.02)


def test_pixelate_is_pillows_box_filter(drawn):
    small = Image.fromarray(drawn[0].permute(1, 2, 0).numpy()).resize((20, 16), Image.BOX)
    small = small.resize((40, 32), Image.BOX)
    ours = (digital.pixelate(drawn[:1].float() / 255, 0.5, None)[0] * 255).permute(1, 2, 0)
    assert np.abs(ours.numpy() - np.array(small)).max() < 1.1  # Pillow rounds twice


def test_clouds_fill_zero_to_one_and_get_finer_with_less_decay():
    x = torch.zeros(3, 3, 24, 40)
    rough, soft = (weather.fractal(x, decay, g()) for decay in (1.5, 3.0))
    assert rough.shape == (3, 1, 24, 40) and rough.min() >= 0 and rough.max() <= 1
    assert rough.diff(dim=3).abs().mean() > soft.diff(dim=3).abs().mean()


@pytest.mark.parametrize("act, message", [
    (lambda x: corruptions.corrupt(x, "fogg", 1, g()),
     "unknown corruption 'fogg'; known: gaussian_noise"),
    (lambda x: corruptions.corrupt(x, "fog", 6, g()), "severity is 6; it is 1, 2, 3, 4 or 5"),
    (lambda x: corruptions.corrupt(x.float(), "fog", 1, g()), "take images uint8"),
    (lambda x: Convention("raw"), "unknown space 'raw'"),
    (lambda x: robustness.fgsm(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), -1),
     "epsilon is -1"),
    (lambda x: robustness.pgd(None, None, None, 1, 1, 1, "l1"), "unknown norm 'l1'"),
])
def test_wrong_input_is_one_clear_error(act, message, drawn):
    with pytest.raises(ValueError, match=message):
        act(drawn)


def test_a_folder_without_the_published_arrays_is_one_clear_error(shapes, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*labels\.npy; root is the folder "
                                                r"of CIFAR"):
        corruptions.published(tmp_path, shapes[1])


def publish(folder, test, copies=5):
    """The files of a set like CIFAR-10-C, made from a test set: fog of ours, JPEG of Pillow."""
    fog = [corruptions.corrupt(test.images, "fog", s, g()) for s in corruptions.SEVERITIES]
    levels = corruptions.TABLE["jpeg_compression"]
    np.save(folder / "fog.npy", torch.cat(fog).permute(0, 2, 3, 1).numpy())
    np.save(folder / "jpeg_compression.npy",
            np.stack([jpeg(x, q) for q in levels for x in test.images]))
    np.save(folder / "labels.npy", test.labels.repeat(copies).numpy().astype(np.uint8))


@pytest.mark.parametrize("copies", [1, 5])
def test_published_arrays_are_read_by_severity_whatever_their_order(copies, shapes, tmp_path):
    test = shapes[1]
    shuffled = test[torch.randperm(len(test), generator=g())]
    publish(tmp_path, shuffled, copies)
    read = corruptions.published(tmp_path, test)
    for severity in corruptions.SEVERITIES:
        images, labels = read("fog", severity)
        assert torch.equal(images, corruptions.corrupt(shuffled.images, "fog", severity, g()))
        assert torch.equal(labels, shuffled.labels)
    with pytest.raises(ValueError, match=r"severity is 2.5; it is 1, 2, 3, 4 or 5"):
        read("fog", 2.5)
    with pytest.raises(FileNotFoundError, match=r"there is no .*frost\.npy"):
        read("frost", 1)
    (tmp_path / "fog.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="cannot be read"):
        read("fog", 1)


def other_images(test):
    return replace(test, images=shapes_module.make(len(test), 0.2, 32, 32, seed=9)[0])


@pytest.mark.parametrize("change, message", [
    (lambda t: replace(t, classes=range(100)),
     r"from 0 to 9, this test set has 100 classes; is it the"),
    (lambda t: replace(t, labels=t.labels % 5, classes=range(5)),
     "from 0 to 9, this test set has 5 cl"),
    (lambda t: replace(t, labels=t.labels.clamp(min=1)), r"another number of images of some class"),
    (lambda t: t[:20], r"labels\.npy has uint8 \(150,\); of this test set it has 20 class indices"),
    (lambda t: replace(t, images=t.images[..., :28]),
     r"of this test set it has uint8 \(150, 32, 28, 3\)"),
    (lambda t: replace(t, labels=(t.labels + 1) % 10),
     "has other labels .*: of 30 .* severity 1, 0 have"),
    (lambda t: replace(t, images=t.images.flip(1)),
     "made from other images .* of 30 images of jpeg_com"),
    (other_images,
     r"made from other images than this test set: of 30 images of jpeg_compression, sev"),
], ids=["CIFAR-10-C for 100 classes", "more classes", "other counts", "a part", "another size",
        "classes in another order", "BGR", "other images of as many classes"])
def test_published_arrays_of_another_data_set_are_refused(change, message, shapes, tmp_path):
    publish(tmp_path, shapes[1])
    with pytest.raises(ValueError, match=message) as caught:
        corruptions.published(tmp_path, change(shapes[1]))
    assert "\n" not in str(caught.value)


def test_a_tiny_gradient_has_a_direction_and_none_has_none():
    z, grad = torch.zeros(3, 3, 4, 5), torch.randn(3, 3, 4, 5, generator=g())
    grad[1] *= 1e-20
    grad[2] = 0
    step = robustness.fgm(z, grad, 0.5)
    assert torch.equal(robustness.fgm(z, torch.zeros_like(z), 1.0), z)
    assert_close(step.flatten(1).norm(dim=1), torch.tensor([0.5, 0.5, 0.0]))
    assert_close(F.cosine_similarity(step[1].flatten(), (grad[1] * 1e20).flatten(), dim=0),
                 torch.tensor(1.0))


@pytest.mark.parametrize("classes, bin", [(5, 3), (3, 5), (15, 1), (1, 14)])
def test_a_confidence_on_an_edge_belongs_to_the_bin_above(classes, bin):
    count, right, sure = calibration.reliability(torch.zeros(4, classes),
                                                 torch.zeros(4, dtype=torch.long))
    assert count.nonzero().tolist() == [[bin]] and right[bin] == 1
    assert_close(sure[bin], torch.tensor(1 / classes, dtype=torch.float64))
