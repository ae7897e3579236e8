"""AutoAttack, by the package pyautoattack.

F. Croce, M. Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020, https://arxiv.org/abs/2003.01690.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float, Int
    from torch import Tensor

    Attack = Literal["apgd-ce", "apgd-t", "fab-t", "square"]

NORMS: dict[str, Literal["Linf", "L2"]] = {"linf": "Linf", "l2": "L2"}


def autoattack(
    seen: Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b k"]], z: Float[Tensor, "b c h w"],
    y: Int[Tensor, " b"], epsilon: float, norm: str = "linf",
    attacks: Sequence[Attack] | None = None, seed: int = 0,
) -> Float[Tensor, "b c h w"]:
    """Adversarial images for images z (B, C, H, W) in [0, 1] and labels y (B,).

    `seen`: a function of such images that gives logits (B, K). `attacks`: some of "apgd-ce",
    "apgd-t", "fab-t", "square"; None for all four. The budget counts in clamped pixels.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ImportError(
            "AutoAttack needs pyautoattack: pip install 'sagelib[attacks]'") from error

    class Module(torch.nn.Module):
        def forward(self, x):
            return seen(x)

    attack = AutoAttack(Module().eval(), eps=epsilon, norm=NORMS[norm], seed=seed, device=z.device,
                        version="standard" if attacks is None else "custom",
                        attacks=None if attacks is None else list(attacks))
    with torch.enable_grad():
        adversarial, _ = attack.run_standard_evaluation(z, y, batch_size=len(z))
    return adversarial.detach()
