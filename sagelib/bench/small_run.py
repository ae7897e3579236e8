"""A small network on the built-in shapes, with its record and its weights, trained in seconds.

The experiments that evaluate trained networks start from it where none is given.
"""
from __future__ import annotations

from pathlib import Path

import torch

from .. import catalog, datasets, methods, models
from ..data.batches import Batches
from ..train import Recipe, fit
from . import records, weights

IMAGES, WIDTH, BATCH = 1000, 8, 50


def small_run(results: str | Path, networks: str | Path, method: str = "vanilla", seed: int = 0,
              epochs: int = 12) -> Path:
    """Train a PreActResNet18 of width 8 on 1,000 shapes; the path of its record under `results`.

    The weights are beside their record under `networks`, where the train notebook puts them. A
    record of the same run that is there, from the last time, is replaced.
    """
    train, test = catalog.load(datasets, "shapes", train=IMAGES)
    torch.manual_seed(seed)
    net = catalog.load(models, "preactresnet18", classes=len(train.classes), width=WIDTH)
    draws, recipe = torch.Generator().manual_seed(seed), Recipe(epochs=epochs)
    mixing = catalog.load(methods, method)
    curve = fit(net, Batches(train, BATCH, generator=draws), mixing.seed(seed), recipe,
                Batches(test, 500), progress=False)
    height, width = train.images.shape[2:]
    record = records.make(
        dataset=dict(name="shapes", classes=len(train.classes), train=len(train), test=len(test),
                     height=height, width=width),
        model=dict(name="preactresnet18", width=WIDTH,
                   parameters=sum(p.numel() for p in net.parameters())),
        method=dict(name=method, settings="default", **mixing.options()), seed=seed, curve=curve,
        parameters={"settings": "paper"},
        recipe={**recipe.described(), "batch": BATCH, "padding": 2, "flip": True})
    weights.save(net, records.path(record, networks).with_suffix(".pt"), record)
    records.path(record, results).unlink(missing_ok=True)
    return records.write(record, results)
