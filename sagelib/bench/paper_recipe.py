"""The recipe of the paper's tables, and how another recipe differs from it, in words.

Source: appendix B and the authors' code. The numbers of the training itself are the defaults of
`train.Recipe`, the widths those of the networks.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from .. import catalog, models
from ..train import Recipe

if TYPE_CHECKING:
    from .schema import Record

_TRAINING: Record = Recipe().described()
_LAST = {name: _TRAINING.pop(name) for name in ("precision", "compile")}
del _TRAINING["channels_last"]  # the layout in memory is no difference
_REST = dict(batch=100, padding=2, flip=True, loss="bce", train_images=50_000)
PAPER: Record = {**_TRAINING, **_REST, **_LAST, "schedule": "steps", "settings": "paper"}
DATASETS = ("cifar10", "cifar100")  # that appendix B states a recipe and the methods' settings for
LR = {("cifar10", "comixup"): 0.12}  # with 0.2 the paper saw it diverge
WIDTH = {name: catalog.defaults(models, name)["width"]
         for name in ("preactresnet18", "wrn16_8", "resnext29_4_24")}
SAYS = {"train_images": "training images", "compile": "compiled"}
# what makes a recipe shorter or longer, the most important first
LESS = ("epochs", "train_images", "width")


def recipe_kind(dataset: Record, model: Record, method: Record, recipe: Record) -> str:
    """The kind of a record's recipe, from four parts of the record.

    "paper" is the paper's recipe on a whole data set at full width. Others are "shortened: …",
    "longer: …" or, where epochs, images and width are the paper's, "changed: …", with every
    difference in words. Precision, schedule, milestones, compilation and the method's settings
    count.
    """
    asked: Record = {**PAPER, "lr": learning_rate(dataset["name"], method["name"]),
                     "width": WIDTH.get(model["name"], model["width"])}
    has: Record = {"schedule": PAPER["schedule"], "compile": False, **recipe,
                   "loss": method["loss"], "width": model["width"],
                   "settings": method["settings"], "train_images": dataset["train"]}
    if has["schedule"] == PAPER["schedule"]:
        has["milestones"] = list(has.get("milestones", ()))
    else:  # which has none
        has |= {name: PAPER[name] for name in ("milestones", "decay")}
    if "optimizer" in has:  # not the paper's: without its momentum
        asked = {k: v for k, v in asked.items() if k not in ("momentum", "nesterov")}
        asked["optimizer"] = "sgd"
    changed = {k: f"{SAYS.get(k, k)} {_text(has.get(k))} (paper {_text(v)})"
               for k, v in asked.items() if has.get(k) != v}
    stated = dataset["name"] in DATASETS
    if "settings" in changed:
        changed["settings"] = f"method settings {method['settings']}, not the paper's"
    # on other data sets the paper states no settings
    words = [text for k, text in changed.items() if k != "settings" or stated]
    if not stated:
        words.append(f"data set {dataset['name']}, not one of the paper's")
    if not words:
        return "paper"
    size = next((k for k in LESS if k in changed), None)
    word = "changed"
    if size is not None:
        word = "shortened" if has[size] < asked[size] else "longer"
    return f"{word}: " + "; ".join(words)


def _text(value):
    """A value as words: short numbers, and no brackets."""
    if isinstance(value, list):
        return " and ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def learning_rate(dataset: str, method: str, settings: str = "paper") -> float:
    """Initial learning rate of a method on a data set: appendix B's, or the usual one.

    Settings other than "paper" train every method with the usual one.
    """
    return LR.get((dataset, method), PAPER["lr"]) if settings == "paper" else PAPER["lr"]
