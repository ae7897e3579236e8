"""Mixup: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
ICLR 2018.

https://arxiv.org/abs/1710.09412. The settings are those of the SAGE paper's comparison: alpha 1,
one lambda and one batch permutation per batch, every batch mixed. No difference from the authors'
code in the arithmetic.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..method import Method, Mixed, as_column, blend, check_pairs, number

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], pair: Int[Tensor, " b"],
        lam: float | Float[Tensor, ""] | Float[Tensor, " b"]) -> Mixed:
    """lam * x + (1 - lam) * x[pair] (B, C, H, W), labels likewise (B, K): section 2 of the paper.

    lam is in [0, 1], one number or one for each image.
    """
    check_pairs(x, y, pair)
    lam = as_column(lam, x)  # (B, 1, 1, 1)
    share = lam.flatten()
    return Mixed(blend(x, pair, lam), blend(y, pair, share),
                 mask=lam.expand(-1, 1, *x.shape[2:]), share=share, pair=pair)


@dataclass(kw_only=True)
class Mixup(Method):
    """One batch permutation, one lambda from Beta(alpha, alpha); per_image: one for each image."""

    LABEL = "the weight lambda"

    alpha: float = number(1.0, 0, 100)
    per_image: bool = False

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        pair = self.draw_permutation(len(x), x.device)
        return mix(x, y, pair, self.draw_beta(self.alpha, x.device, *self._many(x)))


build = Mixup
