"""Mixup: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
ICLR 2018.

https://arxiv.org/abs/1710.09412. The settings are those of the SAGE paper's comparison: alpha 1,
one lambda and one pairing per batch, every batch mixed. No difference from the authors' code in the
arithmetic.
"""
from dataclasses import dataclass

from ..method import Method, Mixed, as_column, blend, check_pairs, number


def mix(x, y, pair, lam):
    """lam * x + (1 - lam) * x[pair], images and labels alike: section 2 of the paper.

    x (B, C, H, W), y (B, K), pair (B,) integers, lam a number or (B,) in [0, 1].
    """
    check_pairs(x, y, pair)
    lam = as_column(lam, x)
    share = lam.flatten()
    picture, label = blend(x, y, pair, lam, share)
    return Mixed(picture, label, mask=lam.expand(-1, 1, *x.shape[2:]), share=share, pair=pair)


@dataclass(kw_only=True)
class Mixup(Method):
    """One lambda from Beta(alpha, alpha) and one pairing for the whole batch; per_image: a lambda
    for each image."""

    LABEL = "the weight lambda"

    alpha: float = number(1.0, 0, 100)
    per_image: bool = False

    def mix(self, x, y, net=None):
        pair = self.draw_permutation(len(x), x.device)
        return mix(x, y, pair, self.draw_beta(self.alpha, x.device, *self._many(x)))


build = Mixup
