"""A folder is a catalogue: the names in it, and how to get what a name stands for.

Adding a method, a model or a data set is adding a file: nothing else is edited.
"""
from __future__ import annotations

import importlib
import inspect
import pkgutil
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import ModuleType


def names(package: ModuleType) -> list[str]:
    """The names users can type: the modules of a package, without those that begin with "_"."""
    modules = pkgutil.iter_modules(package.__path__)
    return sorted(m.name for m in modules if not m.name.startswith("_"))


def load(package: ModuleType, name: str, **options: Any) -> Any:
    """The method, network or data sets that `name` stands for, built with these options.

    A network takes `classes` and `width`, a data set `root` or numbers of images. Raises ValueError
    for a name or an option that is not there, with the list of those that are.
    """
    entry = _entry(package, name)
    known = inspect.signature(entry).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{_like(option, known)}; it has: "
                             f"{', '.join(known)}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{name} needs {option}: load(..., {name!r}, {option}=...)")
    return entry(**options)


def defaults(package: ModuleType, name: str) -> dict[str, Any]:
    """The options that `name` takes and their default values; None where there is none."""
    found = inspect.signature(_entry(package, name)).parameters
    return {k: None if p.default is p.empty else p.default for k, p in found.items()}


def settings(package: ModuleType, name: str, choice: str, dataset: str,
             model: str) -> dict[str, Any]:
    """The options tuned for a method on a data set and network, from its file; {} without any.

    `choice` is "paper" (what the paper or its README states) or "default" (the method's own
    defaults).
    """
    table = stated(package, name, "SETTINGS") or {}
    known = sorted({"default", "paper", *table})
    if choice not in known:
        raise ValueError(f"unknown settings {choice!r}; known: {', '.join(known)}")
    return dict(table.get(choice, {}).get((dataset, model), {}))


def settings_name(package: ModuleType, name: str, choice: str, dataset: str, model: str,
                  own_defaults: Collection[str] = ()) -> str:
    """The name of the settings that `settings` gives: `choice`, or "default" where it has none.

    own_defaults: the data sets on which the defaults of a method without a table of its own count
    as `choice`.
    """
    table = (stated(package, name, "SETTINGS") or {}).get(choice)
    known = dataset in own_defaults if table is None else (dataset, model) in table
    return choice if known else "default"


def stated(package: ModuleType, name: str, what: str) -> Any:
    """A constant in the file of `name`, such as the IMAGES of a data set; None without it."""
    return getattr(_module(package, name), what, None)


def suited(methods: ModuleType, models: ModuleType, model: str) -> list[str]:
    """The names of the methods that can train a network of the catalogue, by its name.

    A method whose file says ATTENTION = True trains those networks alone whose file says so too.
    """
    given = stated(models, model, "ATTENTION")
    return [name for name in names(methods) if given or not stated(methods, name, "ATTENTION")]


def _entry(package, name):
    module = _module(package, name)
    return getattr(module, "build", None) or module.load


def _module(package, name):
    known = names(package)
    if name not in known:
        kind = package.__name__.rsplit(".", 1)[-1].rstrip("s")
        raise ValueError(f"unknown {kind} {name!r}{_like(name, known)}; known: {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def _like(name, known):
    close = get_close_matches(str(name), known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
