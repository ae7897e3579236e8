"""How a network fares off the clean test set: noise and adversarial steps.

The paper's three perturbations (section 4.2, supplement C) are Gaussian noise of variance 0.01,
FGSM with an l-infinity budget of 8/255 and FGM with an l2 budget of 0.5. I. Goodfellow, J. Shlens,
C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015,
https://arxiv.org/abs/1412.6572; PGD: A. Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018, https://arxiv.org/abs/1706.06083. The paper does not say in which
space its budgets count, nor whether images are clamped, and no code was published. So a budget
comes with its `Convention` here: pixels in [0, 1] or normalised values, clamped or not.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import Dataset
from ..modes import evaluation_mode
from ..pixels import PerChannel, per_channel_tensor
from ..stored_grad import gradient
from .autoattack import autoattack

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Network = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b k"]]  # images -> logits

LINF, L2, VARIANCE = 8 / 255, 0.5, 0.01  # the paper's budgets
PERTURBATIONS = ("gaussian", "fgsm", "fgm")
__all__ = ["CONVENTIONS", "AttackSpace", "Convention", "autoattack", "evaluate", "evaluate_pgd",
           "evaluation_mode", "fgm", "fgsm", "gaussian", "loss_gradient", "pgd"]


@dataclass(frozen=True)
class Convention:
    """The space a budget counts in, "pixels" in [0, 1] or "normalised", and whether to clamp."""

    space: str = "pixels"
    clamp: bool = True

    def __post_init__(self) -> None:
        if self.space not in ("pixels", "normalised"):
            raise ValueError(f"unknown space {self.space!r}; a budget counts in 'pixels' or in "
                             "'normalised' values")

    @property
    def name(self) -> str:
        """The convention in words, as records name it."""
        return f"{self.space}, {'clamped' if self.clamp else 'not clamped'}"


CONVENTIONS = tuple(
    Convention(space, clamp) for space in ("pixels", "normalised") for clamp in (True, False))


class AttackSpace:
    """A network as a function of images in a convention's space, with the bounds of real images.

    Called with images (B, C, H, W) of the space, it gives logits (B, K). mean, std: those that the
    network's images are normalised with.
    """

    def __init__(self, net: Network, mean: PerChannel, std: PerChannel,
                 convention: Convention) -> None:
        self.net, self.convention, self.mean, self.std = net, convention, mean, std

    def __call__(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        if self.convention.space == "pixels":
            z = self._normalised(z)
        return self.net(z)

    def images(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Pixels in [0, 1] as images of the space."""
        return pixels if self.convention.space == "pixels" else self._normalised(pixels)

    def gradient(self, grad: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gradient with respect to images of the space, from the one with respect to pixels."""
        if self.convention.space == "pixels":
            return grad
        return grad * per_channel_tensor(self.std, grad.device)

    def real(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Images of the space, clamped to real images where the convention says so."""
        if not self.convention.clamp:
            return z
        low, high = (self.images(torch.full_like(z[:1, :, :1, :1], bound)) for bound in (0.0, 1.0))
        return torch.minimum(torch.maximum(z, low), high)

    def _normalised(self, pixels):
        mean = per_channel_tensor(self.mean, pixels.device)
        return (pixels - mean) / per_channel_tensor(self.std, pixels.device)


def gaussian(z: Float[Tensor, "b c h w"], variance: float,
             noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) plus noise of that variance; `noise` is a standard normal draw."""
    return z + _budget(variance, "variance")**0.5 * noise


def fgsm(z: Float[Tensor, "b c h w"], grad: Float[Tensor, "b c h w"],
         epsilon: float) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W), each value moved by epsilon along the gradient's sign: l-infinity."""
    return z + _budget(epsilon) * grad.sign()


def fgm(z: Float[Tensor, "b c h w"], grad: Float[Tensor, "b c h w"],
        epsilon: float) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W), each moved by l2 length epsilon along its gradient, if that is not 0."""
    # a tiny gradient has a direction too
    grad = grad / grad.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-38)
    return z + _budget(epsilon) * (grad / _l2_lengths(grad))


def pgd(
    seen: AttackSpace, z: Float[Tensor, "b c h w"], y: Int[Tensor, " b"], epsilon: float,
    step: float, steps: int, norm: str = "linf", generator: torch.Generator | None = None,
) -> Float[Tensor, "b c h w"]:
    """Projected gradient descent from images z (B, C, H, W) of the space of `seen`, labels y (B,).

    Steps of length `step`, each projected into the ball of radius epsilon about z, in norm "linf"
    or "l2"; with a `generator` the start is a random point of the ball, for "l2" of its surface.
    """
    if steps < 1 or steps % 1:
        raise ValueError(f"steps is {steps!r}; it must be a whole number, at least 1")
    _budget(epsilon)
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; PGD knows 'linf' and 'l2'")
    move = fgsm if norm == "linf" else fgm
    delta = torch.zeros_like(z) if generator is None else _random_start(z, epsilon, norm, generator)
    for _ in range(steps):
        at = seen.real(z + delta)
        _, grad = loss_gradient(seen, at, y)
        delta = _project(move(at, grad, step) - z, epsilon, norm)
    return seen.real(z + delta)


def _random_start(z, epsilon, norm, generator):
    draw = torch.rand if norm == "linf" else torch.randn
    delta = draw(z.shape, generator=generator, device=generator.device).to(z)
    if norm == "linf":
        return epsilon * (2 * delta - 1)
    return epsilon * delta / _l2_lengths(delta)


def _project(delta, epsilon, norm):
    if norm == "linf":
        return delta.clamp(-epsilon, epsilon)
    return delta * (epsilon / _l2_lengths(delta)).clamp(max=1)


def _l2_lengths(z):
    """The l2 length of each image, (B, 1, 1, 1), at least 1e-12."""
    return z.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


def loss_gradient(
    seen: Network, z: Float[Tensor, "b c h w"], y: Int[Tensor, " b"],
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b c h w"]]:
    """Logits (B, K), and the gradient of the summed cross-entropy with respect to the images z.

    The weights' gradients are not touched.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = seen(z).float()
        loss = F.cross_entropy(logits, y, reduction="sum")
        grad, = gradient(loss, [z], allow_unused=False)
    return logits.detach(), grad  # pyrefly: ignore[bad-return]  # no input is unused, so no None


@torch.no_grad()
def evaluate(
    net: nn.Module, dataset: Dataset, conventions: Sequence[Convention] = CONVENTIONS,
    linf: float = LINF, l2: float = L2, variance: float = VARIANCE, batch: int = 500, seed: int = 0,
) -> dict[str, float | dict[str, float]]:
    """Accuracy in percent, clean and under each perturbation: {"clean": ..., convention: {...}}.

    One forward and one backward pass a batch serve both attacks, in every convention: the gradients
    in the two spaces differ by the factor std. The network is in evaluation mode meanwhile. `seed`:
    of the noise, the same for all.
    """
    clean, counts = 0, {c.name: dict.fromkeys(PERTURBATIONS, 0) for c in conventions}
    generator = torch.Generator().manual_seed(seed)
    plain = AttackSpace(net, dataset.mean, dataset.std, Convention("pixels", True))
    spaces = [AttackSpace(net, dataset.mean, dataset.std, c) for c in conventions]
    with evaluation_mode(net):
        for images, y in zip(dataset.images.split(batch), dataset.labels.split(batch), strict=True):
            pixels = images.float() / 255  # (B, C, H, W)
            logits, grad = loss_gradient(plain, pixels, y)
            clean = clean + _right(logits, y)
            noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
            for seen in spaces:
                z, g = seen.images(pixels), seen.gradient(grad)
                changed = {"gaussian": gaussian(z, variance, noise), "fgsm": fgsm(z, g, linf),
                           "fgm": fgm(z, g, l2)}
                right = counts[seen.convention.name]
                for name, images_changed in changed.items():
                    right[name] = right[name] + _right(seen(seen.real(images_changed)), y)

    def percent(count):
        return 100 * float(count) / len(dataset)

    perturbed = {name: {p: percent(count) for p, count in right.items()}
                 for name, right in counts.items()}
    return {"clean": percent(clean), **perturbed}


@torch.no_grad()
def evaluate_pgd(
    net: nn.Module, dataset: Dataset, convention: Convention = CONVENTIONS[0],
    epsilon: float = LINF, step: float = 2 / 255, steps: int = 20, norm: str = "linf",
    batch: int = 500, seed: int = 0,
) -> float:
    """Accuracy in percent under PGD from a random start."""
    right, generator = 0, torch.Generator().manual_seed(seed)
    seen = AttackSpace(net, dataset.mean, dataset.std, convention)
    with evaluation_mode(net):
        for images, y in zip(dataset.images.split(batch), dataset.labels.split(batch), strict=True):
            z = seen.images(images.float() / 255)
            attacked = pgd(seen, z, y, epsilon, step, steps, norm, generator)
            right = right + _right(seen(attacked), y)
    return 100 * float(right) / len(dataset)


def _right(logits, y):
    return (logits.argmax(1) == y).sum()


def _budget(value, name="epsilon"):
    if not value >= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number, 0 or more")
    return value
