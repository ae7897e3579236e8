"""The recipe of the paper's tables (appendix B and the authors' code), and how another differs from
it, in words.

The numbers of the training itself are the defaults of `train.Recipe`, the widths those of the
networks.
"""

from dataclasses import asdict

from .. import catalog, models
from ..train import Recipe

_TRAINING = asdict(Recipe())
_TRAINING["milestones"] = list(_TRAINING["milestones"])
_LAST = {name: _TRAINING.pop(name) for name in ("precision", "compile")}
del _TRAINING["channels_last"]  # the layout in memory is no difference
_REST = dict(batch=100, padding=2, flip=True, loss="bce", train_images=50_000)
PAPER = {**_TRAINING, **_REST, **_LAST, "schedule": "steps", "settings": "paper"}
DATASETS = ("cifar10", "cifar100")  # that appendix B states a recipe and the methods' settings for
LR = {("cifar10", "comixup"): 0.12}  # with 0.2 the paper saw it diverge
WIDTH = {
    name: catalog.defaults(models, name)["width"]
    for name in ("preactresnet18", "wrn16_8", "resnext29_4_24")
}
SAYS = {"train_images": "training images", "compile": "compiled"}
LESS = (
    "epochs",
    "train_images",
    "width",
)  # what makes a recipe shorter or longer, first things first


def recipe_kind(dataset, model, method, recipe):
    """The kind of a recipe: "paper" for the paper's on a whole data set at full width, else
    "shortened: …", "longer: …" or, where neither epochs nor images nor width differ, "changed: …",
    with every difference in words.

    The dicts are those of a record. Precision, schedule, milestones, compilation and the method's
    settings count.
    """
    asked = {
        **PAPER,
        "lr": LR.get((dataset["name"], method["name"]), PAPER["lr"]),
        "width": WIDTH.get(model["name"], model["width"]),
    }
    has = {
        "schedule": PAPER["schedule"],
        "compile": False,
        **recipe,
        "loss": method["loss"],
        "width": model["width"],
        "settings": method["settings"],
        "train_images": dataset["train"],
    }
    has["milestones"] = list(has.get("milestones", ()))
    changed = {
        k: f"{SAYS.get(k, k)} {_text(has.get(k))} (paper {_text(v)})"
        for k, v in asked.items()
        if has.get(k) != v
    }
    if "settings" in changed:  # on other data sets the paper states none
        changed["settings"] = f"method settings {method['settings']}, not the paper's"
    words = [text for k, text in changed.items() if k != "settings" or dataset["name"] in DATASETS]
    if dataset["name"] not in DATASETS:
        words.append(f"data set {dataset['name']}, not one of the paper's")
    if not words:
        return "paper"
    size = next((k for k in LESS if k in changed), None)
    word = "changed" if size is None else "shortened" if has[size] < asked[size] else "longer"
    return f"{word}: " + "; ".join(words)


def _text(value):
    """A value as words: short numbers, and no brackets."""
    if isinstance(value, list):
        return " and ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def learning_rate(dataset, method, settings="paper"):
    """Initial learning rate of a method on a data set (names): with the paper's settings, what its
    appendix B states; else that of all other methods."""
    return LR.get((dataset, method), PAPER["lr"]) if settings == "paper" else PAPER["lr"]
