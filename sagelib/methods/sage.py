"""SAGE: A. Ma, N. Dvornik, R. Zhang, L. Pishdad, K. G. Derpanis, A. Fazly, "SAGE: Saliency-Guided
Mixup with Optimal Rearrangements", BMVC 2022. https://arxiv.org/abs/2211.00113, Algorithm 1.

Where the paper and the authors' code (https://github.com/SamsungLabs/SAGE) differ, and what we do:
- saliency: the paper's l2 norm over the channels (`norm="l2"`); the code's mean of absolute values
  is `norm="l1"`;
- gradient reuse: g = reuse * clean + (1 - reuse) * mixed. The paper's formula gives its eta to the
  clean gradient, its code to the mixed one; only the code's reading fits Table 7, so the tables'
  eta = 0.7 is `reuse=0.3` here;
- each map is smoothed, then scaled to sum to 1, then multiplied by lambda or 1 - lambda, as in the
  code;
- a map with nothing in it counts as uniform, where the code makes NaN;
- "without saliency-guided mixup" has no published code: see `Sage.guided`, and the other readings
  in `sage_controls.py`.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..mask import mask
from ..method import Mixed, SaliencyGuided, as_column, blend, check_pairs, choice, number
from ..rearrange import best_offset, offset_at, offsets, shift
from ..saliency import normalise, saliency, smooth

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SETTINGS = {  # the paper's appendix B; WRN16-8 is only in the authors' README
    "paper": {
        ("cifar10", "preactresnet18"): dict(u=0.6, reuse=0.3),
        ("cifar100", "preactresnet18"): dict(u=0.5, reuse=0.3),
        ("cifar100", "resnext29_4_24"): dict(u=0.7, reuse=0.5),
        ("cifar100", "wrn16_8"): dict(u=0.7, reuse=0.5),
    },
}


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
        pair: Int[Tensor, " b"], lam: float | Float[Tensor, ""] | Float[Tensor, " b"],
        tau: Int[Tensor, "... n 2"], guided: bool = True) -> Mixed:
    """Move each partner to where most saliency survives, then mix: Algorithm 1, lines 2 to 7.

    s: saliency, smoothed but not normalised; pair: the partner of each image; lam in [0, 1]: weight
    of the image's own saliency; tau (N, 2): candidate shifts of the partner, or (B, N, 2), some for
    each. `guided=False` pastes the whole shifted partner instead of using Equation 2. The label's
    share is the mean of the mask, so pixels that no image covers (zeros: the mean colour) count as
    the partner's.
    """
    a, b = weighted(x, y, s, pair, lam)            # line 2, of smoothed s    (B, 1, H, W) each
    best = best_offset(a, b, tau)                  # line 3: Equation 4       (B, 2)
    return mix_at(x, y, a, b, pair, best, guided)  # lines 4 to 7


def smooth_and_mix(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
    pair: Int[Tensor, " b"], lam: float | Float[Tensor, ""] | Float[Tensor, " b"],
    tau: Int[Tensor, "... n 2"], guided: bool = True, sigma: float = 1.0,
) -> Mixed:
    """`mix` of saliency that is not smoothed yet, by a Gaussian of `sigma` pixels."""
    return mix(x, y, smooth(s, sigma), pair, lam, tau, guided)


def weighted(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
    pair: Int[Tensor, " b"], lam: float | Float[Tensor, ""] | Float[Tensor, " b"],
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
    """Maps of the images and of their partners, (B, 1, H, W), that sum to lam and to 1 - lam."""
    check_pairs(x, y, pair, s)
    lam, s = as_column(lam, x), normalise(s)  # (B, 1, 1, 1) and (B, 1, H, W)
    # a weight of exactly 0 would leave pixels to nobody; 1e-12 is the authors' floor
    return lam.clamp(min=1e-12) * s, (1 - lam).clamp(min=1e-12) * s[pair]


def mix_at(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], a: Float[Tensor, "b 1 h w"],
           b: Float[Tensor, "b 1 h w"], pair: Int[Tensor, " b"], best: Int[Tensor, "b 2"],
           guided: bool = True) -> Mixed:
    """`mix` without the search: a and b are the weighted maps, best is each partner's shift."""
    moved = shift(b if guided else torch.ones_like(b), best)  # Equation 3          (B, 1, H, W)
    m = mask(a, moved) if guided else 1 - moved      # line 4: Equation 2           (B, 1, H, W)
    return mix_by_mask(x, y, m, pair, best)          # lines 5 to 7


def mix_by_mask(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], m: Float[Tensor, "b 1 h w"],
                pair: Int[Tensor, " b"], best: Int[Tensor, "b 2"]) -> Mixed:
    """Mix by a given mask m, the image's own share of each pixel; best is each partner's shift."""
    gamma = m.mean((1, 2, 3))                        # line 5                       (B,)
    partner = shift(x, best, pair)                   # Equation 3                   (B, C, H, W)
    mixed = torch.lerp(partner, x, m.to(x.dtype))    # line 6: m x + (1 - m) partner
    label = blend(y, pair, gamma)                    # line 7                       (B, K)
    return Mixed(mixed, label, mask=m, tau=best, share=gamma, pair=pair)


@dataclass(kw_only=True)
class Sage(SaliencyGuided):
    """Algorithm 1: one lambda, permutation and set of shifts per batch, two passes per step.

    u: lambda is uniform on (0, u). reuse: share of the clean gradient in the step, 0 drops it (and
    does not compute it). fraction: part of all shifts that is searched, at random. sigma: Gaussian,
    pixels. norm: of Equation 1. bn: BatchNorm in the saliency pass of a step; "train" updates its
    statistics twice a step, as the authors' code does, "batch" normalises with the batch's
    statistics and updates nothing, "eval" with the running statistics. (`mix` itself updates
    nothing: with "train" it is as with "batch".) per_image: a lambda and candidates for each image
    instead of for the batch. guided: False is the ablation without saliency-guided mixup, the
    shifted partner pasted over the image (our reading; no code exists). rearranged: False never
    shifts, the ablation without rearrangement.

    Controls that are not in the paper are in `sage_controls.py`.
    """

    NEEDS, LABEL = "gradient, a search", "mean of the mask"

    u: float = number(0.6, 0, 1)
    reuse: float = number(0.3, 0, 1)
    fraction: float = number(0.01, 0, 1)
    sigma: float = number(1.0, 0, 100)
    norm: str = choice("l2", "l1")
    bn: str = choice("train", "eval", "batch")
    per_image: bool = False
    guided: bool = True
    rearranged: bool = True

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        """The loss of one step, a scalar: reuse * clean + (1 - reuse) * mixed, Section 3.4."""
        clean, s = self.clean_pass(net, x, y, scaler, reused=self.reuse > 0)   # line 1
        mixed = self.mix_with_saliency(x, y, s)                                # lines 2 to 7
        self.last = mixed
        return self.reuse * clean + (1 - self.reuse) * self.loss_of(net(mixed.x), mixed.y)

    def saliency_loss(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        return self.loss_of(out, y)

    def saliency_from_grad(self, grad: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.arithmetic(saliency)(grad, self.norm)

    def options(self) -> dict[str, Any]:
        # records have named the two controls since they exist: a run keeps its id
        return {"maps": "own", "searched": True} | super().options()

    def units(self) -> int:
        return 6 if self.reuse > 0 else 5

    def candidates(self, h: int, w: int, device: torch.device | str,
                   images: int | None = None) -> Int[Tensor, "... n 2"]:
        """The shifts to search this time, (N, 2): int(fraction * all) of them, at least one.

        With `images`, a set for each image: (images, N, 2), unless there is only one set.
        """
        if not self.rearranged:
            return torch.zeros(1, 2, dtype=torch.long, device=device)
        if self.fraction == 1:
            return offsets(h, w, device)
        every = (2 * h - 1) * (2 * w - 1)
        n = max(1, int(self.fraction * every))
        if images is None:
            return offset_at(self.draw_permutation(every, device)[:n], h, w)
        keys = self.draw_uniform(0, 1, device, images, every)
        return offset_at(keys.topk(n).indices, h, w)

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        pair, lam, tau = self.draws(x)
        run = self.arithmetic(smooth_and_mix)
        return replace(run(x, y, s, pair, lam, tau, self.guided, self.sigma), saliency=s)

    def draws(
        self, x: Float[Tensor, "b c h w"],
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, "*lam"], Int[Tensor, "... n 2"]]:
        """What `mix` is given: batch permutation (B,), lambda and candidate shifts for images x."""
        (h, w), many = x.shape[2:], self._many(x)
        pair = self.draw_permutation(len(x), x.device)
        lam = self.draw_uniform(0, self.u, x.device, *many)
        return pair, lam, self.candidates(h, w, x.device, *many)


build = Sage
