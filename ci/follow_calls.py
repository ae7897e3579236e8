"""How much a reader opens to follow a call into sagelib.

Three calls are run and watched: a batch by CutMix, a loss by SAGE, one step of the book's own loop.
A file counts when one of its functions runs; its lines are those of the functions that ran. Files
whose functions have the names of the paper's equations, of losses or of modes are listed apart: a
reader can trust those names. The network is the user's.
"""
import inspect
import sys
from pathlib import Path

import torch

import sagelib
from sagelib import catalog, datasets, methods, models
from sagelib.data.batches import Batches
from sagelib.train import Recipe, Run

TOP = Path(sagelib.__file__).parent
EQUATIONS = {
    "saliency.py", "mask.py", "rearrange.py", "modes.py", "search/__init__.py", "search/cpu.py",
    "losses.py"
}


def calls():
    """What is watched: words -> a function without arguments."""
    net = catalog.load(models, "preactresnet18", classes=10, width=4)
    train = catalog.load(datasets, "shapes", train=20, test=10)[0]
    x, y = next(iter(Batches(train, 20)))
    target = y.argmax(1)
    cutmix, sage = sagelib.CutMix, sagelib.SAGE  # imported beforehand
    draws = torch.Generator().manual_seed(0)
    run = Run(net, Batches(train, 20, generator=draws), catalog.load(methods, "sage"),
              Recipe(epochs=1, lr=0.1))
    run.begin(0)
    return {"x, y = CutMix(10)(x, target)": lambda: cutmix(10)(x, target),
            "SAGE(10).bind(net).loss(x, target)": lambda: sage(10).bind(net).loss(x, target),
            "one step of the book's loop, by SAGE": lambda: run.advance(0)}


def followed(call):
    """file -> the names of its functions that a call runs, and their lines of source."""
    seen = {}

    def watch(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(
                f"{TOP}/") and code.co_name != "<module>":
            file, name = str(Path(
                code.co_filename).relative_to(TOP)), code.co_qualname.split(".<locals>")[0]
            if not file.startswith("models/"):
                seen.setdefault(file, {}).setdefault(name, code)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {
        file: (sorted(codes), sum(len(inspect.getsourcelines(code)[0])
                                  for code in codes.values()))
        for file, codes in seen.items()
    }


def main():
    """Print, for each call, the files and the lines."""
    for words, call in calls().items():
        found = followed(call)
        own = {file: value for file, value in found.items() if file not in EQUATIONS}
        print(f"{words}: {len(own)} files, {sum(lines for _, lines in own.values())} lines, "
              f"and {len(found) - len(own)} files of equations and losses")
        for file, (names, lines) in sorted(found.items(), key=lambda item:
                                           (item[0] in EQUATIONS, item[0])):
            print(f"  {file:24}{lines:4} lines  {', '.join(names)}")


if __name__ == "__main__":
    main()
