"""How a network fares off the clean test set: noise and adversarial steps.

The paper's three perturbations (section 4.2, supplement C) are Gaussian noise of variance 0.01,
FGSM with an l-infinity budget of 8/255 and FGM with an l2 budget of 0.5. I. Goodfellow, J. Shlens,
C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015,
https://arxiv.org/abs/1412.6572; PGD: A. Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018, https://arxiv.org/abs/1706.06083. The paper does not say in which
space its budgets count, nor whether pictures are clamped, and no code was published. So a budget
comes with its `Convention` here: pixels in [0, 1] or normalised values, clamped to real pictures or
not.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..modes import evaluation_mode
from ..pixels import per_channel_tensor
from ..stored_grad import gradient
from .autoattack import autoattack

LINF, L2, VARIANCE = 8 / 255, 0.5, 0.01  # the paper's budgets
PERTURBATIONS = ("gaussian", "fgsm", "fgm")
__all__ = [
    "CONVENTIONS",
    "AttackSpace",
    "Convention",
    "autoattack",
    "evaluate",
    "evaluate_pgd",
    "evaluation_mode",
    "fgm",
    "fgsm",
    "gaussian",
    "loss_gradient",
    "pgd",
]


@dataclass(frozen=True)
class Convention:
    """In which space a budget counts, "pixels" in [0, 1] or "normalised", and whether pixels are
    clamped."""

    space: str = "pixels"
    clamp: bool = True

    def __post_init__(self):
        if self.space not in ("pixels", "normalised"):
            raise ValueError(f"unknown space {self.space!r}; a budget counts in 'pixels' or in "
                             "'normalised' values")

    @property
    def name(self):
        return f"{self.space}, {'clamped' if self.clamp else 'not clamped'}"


CONVENTIONS = tuple(
    Convention(space, clamp) for space in ("pixels", "normalised") for clamp in (True, False))


class AttackSpace:
    """A network as a convention sees it: a function of images in that space, with the bounds of
    real pictures there.

    mean, std: of the normalised images. Call it with images (B, C, H, W) of the space; it gives
    logits (B, K).
    """

    def __init__(self, net, mean, std, convention):
        self.net, self.convention, self.mean, self.std = net, convention, mean, std

    def __call__(self, z):
        if self.convention.space == "pixels":
            mean, std = per_channel_tensor(self.mean,
                                           z.device), per_channel_tensor(self.std, z.device)
            z = (z - mean) / std
        return self.net(z)

    def images(self, pixels):
        """Pixels in [0, 1] as images of the space."""
        if self.convention.space == "pixels":
            return pixels
        return (pixels - per_channel_tensor(self.mean, pixels.device)) / per_channel_tensor(
            self.std, pixels.device)

    def gradient(self, grad):
        """The gradient by images of the space, from the one by pixels."""
        return grad if self.convention.space == "pixels" else grad * per_channel_tensor(
            self.std, grad.device)

    def real(self, z):
        """Images of the space, clamped to real pictures where the convention says so."""
        if not self.convention.clamp:
            return z
        low, high = (self.images(torch.full_like(z[:1], bound)) for bound in (0.0, 1.0))
        return torch.minimum(torch.maximum(z, low), high)


def gaussian(z, variance, noise):
    """Images (B, C, H, W) plus noise of that variance; `noise` (B, C, H, W) is a standard normal
    draw."""
    return z + _budget(variance, "variance")**0.5 * noise


def fgsm(z, grad, epsilon):
    """Images (B, C, H, W), each value moved by epsilon along the sign of the loss's gradient: an
    l-infinity step."""
    return z + _budget(epsilon) * grad.sign()


def fgm(z, grad, epsilon):
    """Images (B, C, H, W), each moved by a vector of l2 length epsilon along its gradient; none
    where that is zero."""
    # a tiny gradient has a direction too
    grad = grad / grad.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-38)
    length = grad.flatten(1).norm(dim=1).clamp(min=1e-12)
    return z + _budget(epsilon) * (grad / length[:, None, None, None])


def pgd(seen, z, y, epsilon, step, steps, norm="linf", generator=None):
    """Projected gradient descent from images z (B, C, H, W) of the space that `seen` sees, labels y
    (B,).

    Steps of length `step`, each projected into the ball of radius epsilon about z, in norm "linf"
    or "l2"; with a `generator` the start is a random point of the ball, for "l2" of its surface.
    """
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps is {steps!r}; it must be a whole number, at least 1")
    _budget(epsilon)
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; PGD knows 'linf' and 'l2'")
    move = fgsm if norm == "linf" else fgm
    delta = torch.zeros_like(z) if generator is None else _random_start(z, epsilon, norm, generator)
    for _ in range(steps):
        at = seen.real(z + delta)
        delta = _project(move(at, loss_gradient(seen, at, y)[1], step) - z, epsilon, norm)
    return seen.real(z + delta)


def _random_start(z, epsilon, norm, generator):
    draw = torch.rand if norm == "linf" else torch.randn
    delta = draw(z.shape, generator=generator, device=generator.device).to(z)
    if norm == "linf":
        return epsilon * (2 * delta - 1)
    return epsilon * delta / delta.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


def _project(delta, epsilon, norm):
    if norm == "linf":
        return delta.clamp(-epsilon, epsilon)
    length = delta.flatten(1).norm(dim=1)[:, None, None, None]
    return delta * (epsilon / length.clamp(min=1e-12)).clamp(max=1)


def loss_gradient(seen, z, y):
    """Logits (B, K), and the gradient of the summed cross-entropy by the images z (B, C, H, W),
    labels y (B,).

    The weights' gradients are not touched.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = seen(z).float()
        grad, = gradient(F.cross_entropy(logits, y, reduction="sum"), [z], allow_unused=False)
    return logits.detach(), grad


@torch.no_grad()
def evaluate(net, dataset, conventions=CONVENTIONS, linf=LINF, l2=L2, variance=VARIANCE, batch=500,
             seed=0):
    """Accuracy in percent, clean and under the three perturbations: {"clean": …, convention's name:
    {…}}.

    One forward and one backward pass a batch serve both attacks, in every convention: the gradients
    in the two spaces differ by the factor std. The network is in evaluation mode meanwhile. `seed`:
    of the noise, the same for all.
    """
    clean = {"clean": 0.0, **{c.name: dict.fromkeys(PERTURBATIONS, 0.0) for c in conventions}}
    generator, pixel = torch.Generator().manual_seed(seed), Convention("pixels", True)
    with evaluation_mode(net):
        for images, y in zip(dataset.images.split(batch), dataset.labels.split(batch), strict=True):
            pixels = images.float() / 255
            logits, grad = loss_gradient(AttackSpace(net, dataset.mean, dataset.std, pixel), pixels,
                                         y)
            clean["clean"] = clean["clean"] + _right(logits, y)
            noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
            for convention in conventions:
                seen = AttackSpace(net, dataset.mean, dataset.std, convention)
                z, g, counts = seen.images(pixels), seen.gradient(grad), clean[convention.name]
                for name, changed in (("gaussian", gaussian(z, variance, noise)),
                                      ("fgsm", fgsm(z, g, linf)), ("fgm", fgm(z, g, l2))):
                    counts[name] = counts[name] + _right(seen(seen.real(changed)), y)
    return _percent(clean, len(dataset))


@torch.no_grad()
def evaluate_pgd(net, dataset, convention=CONVENTIONS[0], epsilon=LINF, step=2 / 255, steps=20,
                 norm="linf", batch=500, seed=0):
    """Accuracy in percent under PGD from a random start."""
    right, generator = 0, torch.Generator().manual_seed(seed)
    seen = AttackSpace(net, dataset.mean, dataset.std, convention)
    with evaluation_mode(net):
        for images, y in zip(dataset.images.split(batch), dataset.labels.split(batch), strict=True):
            z = seen.images(images.float() / 255)
            right = right + _right(seen(pgd(seen, z, y, epsilon, step, steps, norm, generator)), y)
    return 100 * float(right) / len(dataset)


def _right(logits, y):
    return (logits.argmax(1) == y).sum()


def _percent(counts, n):
    return {
        k: _percent(v, n) if isinstance(v, dict) else 100 * float(v) / n
        for k, v in counts.items()
    }


def _budget(value, name="epsilon"):
    if not value >= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number, 0 or more")
    return value
