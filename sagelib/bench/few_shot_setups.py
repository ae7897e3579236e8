"""How few-shot networks are trained: in the set-up that the paper refers to, and in the book's own.

"reference": N. Dvornik, C. Schmid, J. Mairal, "Diversity with Cooperation: Ensemble Methods for
Few-Shot Classification", ICCV 2019, as its published code trains a single network:
https://github.com/dvornikita/fewshot_ensemble at commit 46e3ef1. Each value was read there:

- Adam with PyTorch's defaults, learning rate 1e-4, weight decay 5e-4, batches of 16, at most 100
  epochs (`singles/config.py`, `models/helpers.py`);
- cross-entropy on all base classes (`models/losses.py`);
- the shorter side resized to 96 pixels, a random crop of 84, a random flip; at the test, the centre
  (`data/data_utils.py`, of its smaller networks). Other images are resized by the same 8/7;
- after each epoch the loss on 1,000 validation episodes, 5 ways, 5 shots, 15 queries, cosine times
  20. After 10 epochs without a lower one, training goes back to the best epoch, weights and
  optimiser, and on with a tenth of its learning rate. It ends at a hundredth of the first rate
  (`singles/train.py`). The network of the lowest loss is tested, on 1,000 episodes
  (`singles/test.py`).

What differs here: the network, a ResNet12 as the paper says, which that code does not have; mean
and standard deviation of the training images, there ImageNet's; and the validation episodes, there
drawn again after each epoch. Whether the paper's authors trained so is not known: it names no
value.

"book": the recipe of the paper's other tables, with 100 epochs. The records made before there were
set-ups are of this one.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .schema import Parameters, Record

# parameter of the notebook -> its value, where none is given
SETUPS: dict[str, Parameters] = {
    "reference": {"optimizer": "adam", "lr": 1e-4, "weight_decay": 5e-4, "batch": 16,
                  "criterion": "cross_entropy", "schedule": "plateau", "choose": "val_loss"},
    "book": {"optimizer": "sgd", "lr": 0.2, "weight_decay": 1e-4, "batch": 100,
             "criterion": "bce", "schedule": "steps", "choose": "val_accuracy"},
}
# of the schedule "plateau", as the reference's code has it: fields of the recipe
PLATEAU = {"decay": 0.1, "monitor": "val_loss", "rewind": True, "last_lr": 0.01}
CHOICES = ("val_accuracy", "val_loss")  # keys of the curve that may choose the epoch


def settled(given: Parameters, height: int | None = None) -> Parameters:
    """The values of a set-up for the parameters that are not given: 0, "" or below 0.

    height: of the images, which the sizes follow that are relative to it.
    """
    setup = given["setup"]
    found = {**SETUPS.get(setup, {})}
    if given["dataset"] == "shapes_fs":  # 960 images: enough steps, or long enough ones
        found |= {"reference": {"lr": 1e-3}, "book": {"batch": 20}}.get(setup, {})
    if height:
        reference = setup == "reference"
        found["resize"] = round(height * 8 / 7) if reference else 0
        found["padding"] = 0 if reference else max(1, round(height / 16))
    return {name: value for name, value in found.items() if not _is_given(name, given[name])}


def _is_given(name, value):
    return value >= 0 if name in ("weight_decay", "resize", "padding") else bool(value)


def check(given: Parameters) -> None:
    """ValueError for a set-up, or what chooses the epoch, of an unknown name."""
    for name, known in (("setup", SETUPS), ("choose", ("", *CHOICES))):
        if given[name] not in known:
            raise ValueError(f"unknown {name} {given[name]!r}; known: "
                             f"{', '.join(filter(None, known))}")


def setup_of(record: Record) -> str:
    """The set-up that the run of a few-shot record asked for, whatever it then changed in it."""
    return record["parameters"].get("setup", "book")
