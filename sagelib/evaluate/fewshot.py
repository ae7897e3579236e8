"""Few-shot classification: new classes, each shown by a few labelled images.

An episode draws `ways` classes that the network was not trained on, `shots` images of each to learn
them from (the support) and `queries` more to classify: O. Vinyals et al., "Matching Networks for
One Shot Learning", NeurIPS 2016, https://arxiv.org/abs/1606.04080. A class is its prototype, the
mean of its support's features: J. Snell, K. Swersky, R. Zemel, "Prototypical Networks for Few-shot
Learning", NeurIPS 2017, https://arxiv.org/abs/1703.05175.

The paper's Table 2 follows N. Dvornik, C. Schmid, J. Mairal, "Diversity with Cooperation: Ensemble
Methods for Few-Shot Classification", ICCV 2019, https://arxiv.org/abs/1903.11341. Their code has 5
ways, 5 shots, 15 queries, 1,000 episodes and cosine similarity, the defaults here. It chooses the
epoch by the lowest loss on validation episodes (`losses`), with other episodes after each epoch;
here they are the same ones. `bench.few_shot_setups` has its training.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batches import Batches
from ..data.dataset import Dataset
from ..modes import evaluation_mode, without_autocast

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DISTANCES = ("cosine", "euclidean")
COSINE_SCALE = 20  # of the logits, in the code of Dvornik et al.


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Which episodes, N-way K-shot, and how many; a seed draws the same ones on every device."""

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{name} is {value!r}; it must be a whole number, at least {least}")

    def draw(self, labels: Int[Tensor, " m"]) -> Int[Tensor, "episodes ways images"]:
        """Indices of images, (episodes, ways, shots + queries), from class indices `labels` (M,).

        No image is twice in an episode; the first `shots` of each class are its support. ValueError
        if there are too few classes or images.
        """
        labels, needed = labels.cpu(), self.shots + self.queries
        members = [(labels == k).nonzero()[:, 0] for k in labels.unique().tolist()]
        fewest = min(map(len, members), default=0)
        if len(members) < self.ways:
            raise ValueError(f"an episode of {self.ways} ways needs as many classes, here are "
                             f"{len(members)}: take fewer ways")
        if fewest < needed:
            raise ValueError(f"an episode needs {needed} images of a class ({self.shots} shots, "
                             f"{self.queries} queries), the smallest class here has {fewest}: "
                             "take fewer, or more images")
        g = torch.Generator().manual_seed(self.seed)
        drawn = []
        for _ in range(self.episodes):
            for k in torch.randperm(len(members), generator=g)[:self.ways].tolist():
                order = torch.randperm(len(members[k]), generator=g)
                drawn.append(members[k][order[:needed]])
        return torch.stack(drawn).unflatten(0, (self.episodes, self.ways))


def prototypes(support: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n d"]:
    """Each class's prototype, the mean of its examples' features: (..., N, K, D) -> (..., N, D)."""
    return support.mean(-2)


def similarity(query: Float[Tensor, "*#e q d"], prototype: Float[Tensor, "*#e n d"],
               distance: str = "cosine") -> Float[Tensor, "*e q n"]:
    """How near each query (..., Q, D) is to each prototype (..., N, D): (..., Q, N).

    `distance`: "cosine", or "euclidean" for minus the squared Euclidean distance.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; known: {', '.join(DISTANCES)}")
    if distance == "cosine":
        return F.normalize(query, dim=-1) @ F.normalize(prototype, dim=-1).transpose(-1, -2)
    return -(query[..., :, None, :] - prototype[..., None, :, :]).square().sum(-1)


@torch.no_grad()
def features(net: nn.Module, dataset: Dataset, batch: int = 100,
             crop: tuple[int, int] | None = None) -> Float[Tensor, "m d"]:
    """What enters the last linear layer of `net`, in evaluation mode, for every image: (M, D).

    crop: height and width of the centre of each image that the network sees; None for all of it.
    """
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("few-shot needs a network that ends with a linear layer: what enters it "
                         "are the features")
    seen = []
    hook = linear[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    try:
        with evaluation_mode(net):
            for x, _ in Batches(dataset, batch, crop=crop):
                net(x)
    finally:
        hook.remove()
    return torch.cat(seen)


def similarities(found: Float[Tensor, "m d"], drawn: Int[Tensor, "e n i"], shots: int,
                 distance: str = "cosine", chunk: int = 50
                 ) -> Iterator[tuple[Float[Tensor, "e q n"], Int[Tensor, " q"]]]:
    """For `chunk` episodes at a time: how near each query is to each prototype, and its class.

    (E, N Q, N), and indices into the episode's classes (N Q,); arguments as for `accuracies`.
    """
    ways, found = drawn.shape[1], found.float()
    truth = torch.arange(ways, device=found.device).repeat_interleave(drawn.shape[2] - shots)
    for part in drawn.to(found.device).split(chunk):
        support = found[part[..., :shots]]                   # (E, N, K, D)
        queries = found[part[..., shots:]].flatten(1, 2)     # (E, N Q, D)
        with without_autocast(found.device):
            yield similarity(queries, prototypes(support), distance), truth


def accuracies(found: Float[Tensor, "m d"], drawn: Int[Tensor, "e n i"], shots: int,
               distance: str = "cosine", chunk: int = 50) -> Float[Tensor, " e"]:
    """Accuracy of each episode in percent, (E,), from features (M, D).

    `drawn`: indices of images (E, N, shots + Q), of `Episodes.draw`. Computed in float32 also under
    autocast, since half precision would not tell near prototypes apart.
    """
    right = []
    for near, truth in similarities(found, drawn, shots, distance, chunk):
        right.append((near.argmax(-1) == truth).float().mean(1))
    return 100 * torch.cat(right)


def losses(found: Float[Tensor, "m d"], drawn: Int[Tensor, "e n i"], shots: int,
           distance: str = "cosine", chunk: int = 50) -> Float[Tensor, " e"]:
    """Cross-entropy of each episode, (E,), mean over its queries; arguments as for `accuracies`.

    The logits are 20 times the cosine, as in the code of Dvornik et al., or minus the squared
    Euclidean distance.
    """
    scale = COSINE_SCALE if distance == "cosine" else 1
    return torch.cat([F.cross_entropy(scale * near.transpose(1, 2), truth.expand(near.shape[:2]),
                                      reduction="none").mean(1)
                      for near, truth in similarities(found, drawn, shots, distance, chunk)])


def mean_interval(values: Float[Tensor, " e"]) -> tuple[float, float]:
    """Mean of (E,) and half-width of its 95 % interval: 1.96 standard errors, 0 for one value."""
    values = values.cpu().double()  # a Mac's GPU has no float64
    spread = float(values.std()) if len(values) > 1 else 0.0
    return float(values.mean()), 1.96 * spread / len(values) ** 0.5


def evaluate(found: Float[Tensor, "m d"], labels: Int[Tensor, " m"], episodes: Episodes,
             distance: str = "cosine") -> dict[str, float | str]:
    """One result as a record keeps it: the episodes' numbers, accuracy in percent, its interval.

    From features (M, D) and class indices (M,).
    """
    mean, half = mean_interval(accuracies(found, episodes.draw(labels), episodes.shots, distance))
    return {**asdict(episodes), "distance": distance, "accuracy": mean, "interval": half}


def validate(found: Float[Tensor, "m d"], labels: Int[Tensor, " m"], episodes: Episodes,
             distance: str = "cosine") -> dict[str, float]:
    """Accuracy in percent and loss on validation episodes, for a curve: val_accuracy, val_loss.

    From features (M, D) and class indices (M,); means over the episodes.
    """
    drawn = episodes.draw(labels)
    values = {"val_accuracy": accuracies, "val_loss": losses}
    return {name: mean_interval(function(found, drawn, episodes.shots, distance))[0]
            for name, function in values.items()}
