"""ViT-Ti, from "An Image Is Worth 16x16 Words", ICLR 2021, with patches of 4 x 4 pixels.

A. Dosovitskiy et al., https://arxiv.org/abs/2010.11929; the size is DeiT-Ti's: H. Touvron, M. Cord,
M. Douze, F. Massa, A. Sablayrolles, H. Jegou, ICML 2021, https://arxiv.org/abs/2012.12877. 12
pre-norm blocks of 3 heads with 64 channels each; 5,362,570 parameters for 10 classes. Not a network
of the SAGE paper, which has convolutional ones alone. Differs from DeiT-Ti: 4 x 4 pixels a patch,
so that an image of 32 x 32 is 64 patches and a class token; no dropout and no stochastic depth.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

ATTENTION = True  # it gives the attention that some methods ask for
PATCH, GRID = 4, 8  # pixels a side; patches a side for which positions are learnt
HEADS, BLOCKS, MLP_RATIO = 3, 12, 4


class Block(nn.Module):
    """LayerNorm and self-attention, LayerNorm and an MLP, each plus its input.

    Tokens (B, T, D) -> (B, T, D).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        q, k, v = self.qkv(self.norm1(z)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)       # (B, heads, T, D / heads)
        z = z + self.proj(heads.transpose(1, 2).flatten(2))   # (B, T, D)
        return z + self.fc2(F.gelu(self.fc1(self.norm2(z))))  # (B, T, D)

    def class_attention(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        """Attention of the first token of the block's input to each, (B, T), mean over heads.

        At least 0, with rows that sum to 1.
        """
        z = self.norm1(z)
        (to_q, to_k, _), (q_bias, k_bias, _) = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q, k = F.linear(z[:, :1], to_q, q_bias), F.linear(z, to_k, k_bias)
        wide = torch.promote_types(q.dtype, torch.float32)  # also under autocast
        q, k = (p.to(wide).unflatten(2, (HEADS, -1)).transpose(1, 2) for p in (q, k))
        scores = (q * k).sum(-1) / q.shape[-1] ** 0.5  # (B, heads, T)
        return scores.softmax(-1).mean(1)


class VisionTransformer(nn.Module):
    """Images (B, 3, H, W), H and W multiples of 4 -> logits (B, classes).

    `stages`: three groups of blocks. After them comes the last block, whose attention can be asked
    for. The positions are learnt for 32 x 32 pixels, and interpolated for other sizes.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        channels = HEADS * width
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.position = nn.Parameter(torch.zeros(1, channels, GRID, GRID))
        self.stage1, self.stage2, self.stage3 = (
            nn.Sequential(*[Block(channels) for _ in range(n)]) for n in (4, 4, BLOCKS - 9))
        self.last_block = Block(channels)
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, classes)
        self.apply(_initialise)
        for parameter in (self.class_token, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.stage1, self.stage2, self.stage3

    def forward(
        self, x: Float[Tensor, "b 3 h w"], with_attention: bool = False,
    ) -> Float[Tensor, "b k"] | tuple[Float[Tensor, "b k"], Float[Tensor, "b 1 h2 w2"]]:
        """Logits (B, classes); with attention also that of the class token to the patches.

        (B, 1, H/4, W/4), at least 0, in the last block, the mean over its heads, without a graph.
        An image's map sums to 1 less what the class token attends to itself.
        """
        z = self.tokens(x)
        for stage in self.stages:
            z = stage(z)
        logits = self.linear(self.norm(self.last_block(z)[:, 0]))
        if not with_attention:
            return logits
        with torch.no_grad():
            patches = self.last_block.class_attention(z)[:, 1:]  # (B, T - 1)
        return logits, patches.unflatten(1, (1, x.shape[2] // PATCH, -1))

    def tokens(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        """The class token and the patches of images, row by row, with their positions."""
        if x.shape[2] % PATCH or x.shape[3] % PATCH:
            raise ValueError(f"images are {x.shape[2]} x {x.shape[3]} pixels; the transformer "
                             f"takes heights and widths that are multiples of {PATCH}: crop or "
                             "resize")
        z, position = self.patches(x), self.position  # (B, D, H/4, W/4), (1, D, 8, 8)
        if z.shape[2:] != position.shape[2:]:
            position = F.interpolate(position, z.shape[2:], mode="bicubic")
        z = (z + position).flatten(2).transpose(1, 2)  # (B, T - 1, D)
        return torch.cat([self.class_token.expand(len(x), -1, -1).to(z.dtype), z], 1)


def _initialise(module):
    if isinstance(module, nn.Linear):  # as large at every width
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def build(classes: int, width: int = 64) -> VisionTransformer:
    """The network with `width` channels in each of its 3 heads, 64 in ViT-Ti."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and a width of 1, not {classes} and "
                         f"{width}")
    return VisionTransformer(classes, width)
