"""Parameters of the experiment notebooks: their types, and what texts and 0 stand for.

papermill's `-p` converts booleans, None and numbers alone: a list or a mapping given with `-p`
arrives as text, one given with `-y` does not. `checked` accepts both. `settled` says what the
notebook runs with, `recorded` what its record keeps, and `deciding` what two runs are compared by.
"""
from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import catalog, methods, models
from . import few_shot_setups
from .paper_recipe import DATASETS, PAPER, learning_rate

if TYPE_CHECKING:
    from .schema import Parameters


@dataclass(frozen=True)
class Kind:
    """A type of parameters: in words, how papermill takes it, and whether a value is of it."""

    words: str
    how: str  # an option of papermill for the parameter {name}; {value} is what was given
    fits: Callable[[Any], bool]
    literal: bool = False  # whether it may be given as the text of a literal


def _whole(low, high=math.inf):
    words = f"a whole number from {low} to {high}"
    if high == math.inf:
        words = f"a whole number of at least {low}"
    return Kind(words, f"-p {{name}} {max(1, low)}", lambda v: type(v) is int and low <= v <= high)


def _list(kind, example, least=1):
    """A list of at least so many values of a kind."""
    plural = kind.words.removeprefix("a ").replace("number", "numbers").replace("text", "texts")
    return Kind(f"a list of {plural}" if least == 0 else f"a list of one or more {plural}",
                f"-y '{example}'",
                lambda v: isinstance(v, list) and len(v) >= least and all(map(kind.fits, v)), True)


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _is_options(value):
    return isinstance(value, dict) and all(isinstance(k, str) for k in value)


def _is_side(value):
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
            and _is_options(value[1]))


def _are_sides(value):
    return value == "all" or (isinstance(value, list) and value != [] and all(map(_is_side, value)))


TEXT = Kind("a text", "-r {name} {value}", lambda v: isinstance(v, str))
SWITCH = Kind("True or False", "-p {name} True", lambda v: isinstance(v, bool))
NUMBER = Kind("a number", "-p {name} 0.1", _is_number)
SHARE = Kind("a number above 0, at most 1", "", lambda v: _is_number(v) and 0 < v <= 1)
_WORDS = ("dataset root method settings model schedule precision device results checkpoints "
          "networks record weights_file published setup optimizer criterion choose")
_COUNTS = "width seed epochs train_images batch images pgd_steps pgd_images patience"
KINDS = {  # of every parameter of the experiments
    **dict.fromkeys(_WORDS.split(), TEXT),
    **dict.fromkeys("nesterov flip channels_last compile_network graph progress".split(), SWITCH),
    **dict.fromkeys("lr momentum weight_decay linf l2 variance".split(), NUMBER),
    **dict.fromkeys(f"{_COUNTS} classes autoattack_images corruption_images".split(), _whole(0)),
    **dict.fromkeys("ways queries episodes pairs loop_pairs rounds threads test_every".split(),
                    _whole(1)),
    **dict.fromkeys(("padding", "resize"), _whole(-1)),
    "options": Kind("a mapping of options", "-y 'options: {{fraction: 0.1}}'", _is_options, True),
    "compile_options": Kind("a mapping of options of torch.compile",
                            "-y 'compile_options: {{combo_kernels: true}}'", _is_options, True),
    "more_seeds": _list(_whole(0), "more_seeds: [1, 2]", least=0),
    "shots": _list(_whole(1), "shots: [1, 5]"),
    "distances": _list(TEXT, "distances: [cosine, euclidean]"),
    "severities": _list(_whole(1, 5), "severities: [1, 3, 5]"),
    "sizes": _list(_whole(1), "sizes: [32, 64]"),
    "fractions": _list(SHARE, "fractions: [0.01, 1.0]"),
    "sides": Kind("a list of pairs, a method and its options each, or all",
                  "-y 'sides: [[vanilla, {{}}], [sage, {{fraction: 0.1}}]]'", _are_sides, True),
}
UNRECORDED = "root results checkpoints networks record weights_file graph progress".split()
ASIDE = (*UNRECORDED, "device", "more_seeds")  # what does not decide a result
UNDECIDING = (*ASIDE, "test_every")  # and how much of the curve is measured

SHAPES = 10  # classes of the images that step_time takes without a weights_file
DEFAULTS = {  # what 0 stands for, by experiment: on the built-in images, and on other data sets
    "train": {"shapes": {"epochs": 2, "width": 8}, "others": {"epochs": PAPER["epochs"]}},
    "few_shot": {"shapes_fs": {"epochs": 6, "width": 8}, "others": {"epochs": 100}},
}


def checked(**given: Any) -> Parameters:
    """The parameters of an experiment, each of its own type; a literal's text becomes its value.

    ValueError names a parameter of another type, says what is allowed and how to give it to
    papermill.
    """
    found = {name: _value(name, value) for name, value in given.items()}
    seeds = [found.get("seed"), *found.get("more_seeds", [])]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ValueError(f"more_seeds is {found['more_seeds']} beside seed {found.get('seed')}: "
                         f"seed {twice} is there twice; give each seed once")
    return found


def _value(name, given):
    kind = KINDS[name]
    value = _literal(given) if kind.literal and isinstance(given, str) else given
    try:  # as a record keeps it: a tuple is a list
        value = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        value = None
    if not kind.fits(value):
        how = kind.how.format(name=name, value=given)
        raise ValueError(f"{name} is {given!r}; it must be {kind.words}, given to papermill as "
                         f"{how}")
    return value


def _literal(text):
    """The value of a Python or JSON literal; a text that is neither stays as it is."""
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def settled(experiment: str, given: Parameters, height: int | None = None,
            test: int | None = None) -> Parameters:
    """The parameters an experiment runs with: `given`, with what 0, -1 or "all" stand for.

    height: of the images, pixels, which few_shot's sizes follow; test: images of the test set, for
    robustness and attack_readings.
    """
    found = given | {k: given[k] or v for k, v in _defaults(experiment, given).items()}
    if experiment == "few_shot":
        found |= few_shot_setups.settled(found, height)
    if experiment == "step_time":
        found["classes"] = given["classes"] or SHAPES
        sides = catalog.names(methods)
        # a record may be of a network that is no longer here
        if given["model"] in catalog.names(models):
            sides = catalog.suited(methods, models, given["model"])
            found["width"] = given["width"] or catalog.defaults(models, given["model"]).get("width")
        if given["sides"] == "all":
            found["sides"] = [[name, {}] for name in sides]
    if experiment in ("robustness", "attack_readings"):
        found["linf"] = given["linf"] / 255
        found["images"] = given["images"] or test
        if found["images"] is None:
            raise ValueError(f"{experiment} with images 0 needs `test`, the images of the test set")
    if experiment == "robustness":
        found["published"] = bool(given["published"])
        found["corruption_images"] = given["corruption_images"] or found["images"]
        for name in ("pgd_images", "autoattack_images", "corruption_images"):
            found[name] = min(found[name], found["images"])
    return found


def _defaults(experiment, given):
    by_dataset = DEFAULTS.get(experiment, {})
    found: Parameters = {**by_dataset.get(given.get("dataset"), by_dataset.get("others", {}))}
    if experiment == "train":
        found["lr"] = learning_rate(given["dataset"], given["method"], given["settings"])
    return found


def settings_name(given: Parameters) -> str:
    """The name of the settings that the method runs with.

    "paper" where the paper states some for this data set and network, else "default".
    """
    return catalog.settings_name(methods, given["method"], given["settings"], given["dataset"],
                                 given["model"], DATASETS)


def recorded(given: Parameters) -> Parameters:
    """What a record keeps of the parameters: all as given, but for places on one machine."""
    return {name: value for name, value in given.items() if name not in UNRECORDED}


def deciding(experiment: str, given: Parameters, **facts: int | None) -> Parameters:
    """The settled parameters that decide a result: two runs with the same ones are the same run."""
    found = settled(experiment, given, **facts)
    return {k: v for k, v in found.items() if k not in UNDECIDING}
