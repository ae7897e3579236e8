"""Few-shot: a network trained on some classes is tried on classes it never saw, each shown by a few
labelled pictures.

An episode draws `ways` new classes, `shots` pictures of each to learn them from (the support) and
`queries` more to be told apart: O. Vinyals et al., "Matching Networks for One Shot Learning",
NeurIPS 2016, https://arxiv.org/abs/1606.04080. A class is its prototype, the mean of its support's
features: J. Snell, K. Swersky, R. Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS
2017, https://arxiv.org/abs/1703.05175.

The paper's Table 2 follows N. Dvornik, C. Schmid, J. Mairal, "Diversity with Cooperation: Ensemble
Methods for Few-Shot Classification", ICCV 2019, https://arxiv.org/abs/1903.11341. Their code has 5
ways, 5 shots, 15 queries, 1,000 episodes and cosine similarity, the defaults here; it chooses the
epoch by the lowest loss on validation episodes, the book by the highest accuracy.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..data.batches import Batches
from ..modes import evaluation_mode, without_autocast

DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Which episodes: N-way K-shot, and how many; the same `seed` draws the same pictures, on every
    device."""

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 1000
    seed: int = 0

    def __post_init__(self):
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{name} is {value!r}; it must be a whole number, at least {least}")

    def draw(self, labels):
        """Pictures by number, int64 (episodes, ways, shots + queries), from class numbers `labels`
        (M,).

        No picture is twice in an episode; the first `shots` of each class are its support.
        ValueError if there are too few classes or pictures.
        """
        labels, needed = labels.cpu(), self.shots + self.queries
        members = [(labels == k).nonzero()[:, 0] for k in labels.unique().tolist()]
        fewest = min(map(len, members), default=0)
        if len(members) < self.ways:
            raise ValueError(f"an episode of {self.ways} ways needs as many classes, here are "
                             f"{len(members)}: take fewer ways")
        if fewest < needed:
            raise ValueError(f"an episode needs {needed} pictures of a class ({self.shots} shots, "
                             f"{self.queries} queries), the smallest class here has {fewest}: "
                             "take fewer, or more pictures")
        g = torch.Generator().manual_seed(self.seed)
        return torch.stack([
            torch.stack([
                members[k][torch.randperm(len(members[k]), generator=g)[:needed]]
                for k in torch.randperm(len(members), generator=g)[:self.ways].tolist()
            ])
            for _ in range(self.episodes)
        ])


def prototypes(support):
    """Features of each class's examples (…, N, K, D) -> the classes' prototypes, their means (…, N,
    D)."""
    return support.mean(-2)


def similarity(query, prototype, distance="cosine"):
    """How near each query (…, Q, D) is to each prototype (…, N, D): (…, Q, N), the cosine or minus
    the squared Euclidean distance."""
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; known: {', '.join(DISTANCES)}")
    if distance == "cosine":
        return F.normalize(query, dim=-1) @ F.normalize(prototype, dim=-1).transpose(-1, -2)
    return -(query[..., :, None, :] - prototype[..., None, :, :]).square().sum(-1)


@torch.no_grad()
def features(net, dataset, batch=100):
    """What enters the last linear layer of `net`, in evaluation mode, for every image: (M, D)."""
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("few-shot needs a network that ends with a linear layer: what enters it "
                         "are the features")
    seen = []
    hook = linear[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    try:
        with evaluation_mode(net):
            for x, _ in Batches(dataset, batch):
                net(x)
    finally:
        hook.remove()
    return torch.cat(seen)


def accuracies(found, drawn, shots, distance="cosine", chunk=50):
    """Percent right in each episode, (E,): features (M, D), episodes (E, N, shots + Q) of picture
    numbers, as drawn.

    In float32 also under autocast: near prototypes differ by less than half precision tells apart.
    """
    right, ways, found = [], drawn.shape[1], found.float()
    truth = torch.arange(ways, device=found.device)[:, None]  # the query's class is its row
    for part in drawn.to(found.device).split(chunk):
        with without_autocast(found.device):
            near = similarity(found[part[..., shots:]].flatten(1, 2),
                              prototypes(found[part[..., :shots]]), distance)
        guess = near.argmax(-1).view(len(part), ways, -1)
        right.append((guess == truth).float().mean((1, 2)))
    return 100 * torch.cat(right)


def mean_interval(values):
    """The mean of (E,) and the half-width of its 95 % interval, 1.96 standard errors; 0 for a
    single value."""
    values = values.cpu().double()  # a Mac's GPU has no float64
    spread = float(values.std()) if len(values) > 1 else 0.0
    return float(values.mean()), 1.96 * spread / len(values) ** 0.5


def evaluate(found, labels, episodes, distance="cosine"):
    """One result, as a record holds it: the episodes' numbers, accuracy in percent and its
    interval, from features (M, D) and class numbers (M,)."""
    mean, half = mean_interval(accuracies(found, episodes.draw(labels), episodes.shots, distance))
    return {**asdict(episodes), "distance": distance, "accuracy": mean, "interval": half}
