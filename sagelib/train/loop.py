"""The training loop: it takes a network, batches and a method, and knows none of them by name."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from torch import nn

from ..evaluate import scores
from .checkpoint import Writer, restore
from .recipe import Recipe
from .step import Curve, Run

if TYPE_CHECKING:
    from ..data.batches import Batches
    from ..evaluate.accuracy import LabelledBatches
    from ..method import Method

    Test = LabelledBatches | Callable[[nn.Module], Mapping[str, float]]


def fit(
    net: nn.Module, batches: Batches, method: Method, recipe: Recipe | None = None,
    test: Test | None = None, checkpoint: str | Path | None = None,
    on_epoch: Callable[[Curve], object] | None = None, progress: bool = False, graph: bool = True,
    test_every: int = 1,
) -> Curve:
    """The curve, one dict an epoch, of training `net` in place on `batches` with `method`.

    `test` is evaluated after every epoch, or every `test_every` epochs and after the last one:
    batches, or a function of the network that returns a dict for the curve. With `checkpoint`, a
    path, everything is saved there after each epoch, by a thread while the next epoch trains. A run
    that was killed continues from there, to the same weights and curve on the same machine and
    thread count. When `fit` returns or raises, the last finished epoch is on the disk; when
    `on_epoch(curve)` is called after each epoch, that epoch need not be yet. A loss that is not
    finite raises FloatingPointError; the checkpoint then still has the last good epoch.

    On a GPU all of this holds up to rounding, since cuDNN chooses its algorithms by their time,
    unless `torch.backends.cudnn.deterministic` is set.

    On a GPU no step waits for the host. With `graph` the whole step, from the crop of the images to
    the update of the weights, is recorded as one CUDA graph; where that fails, a warning says why.
    """
    run = Run(net, batches, method, recipe or Recipe(), checkpoint, graph)
    if on_epoch is None:
        return fit_together([run], test, None, progress, test_every)[0]
    return fit_together([run], test, lambda curves: on_epoch(curves[0]), progress, test_every)[0]


def fit_together(
    runs: Sequence[Run], test: Test | None = None,
    on_epoch: Callable[[list[Curve]], object] | None = None, progress: bool = False,
    test_every: int = 1,
) -> list[Curve]:
    """The curves of several runs (`Run`), such as seeds, trained step by step in turn.

    Each comes out as if it were trained by itself. On a GPU each has its own stream, so that one
    fills the gaps of another: for accuracy, not for timing, since seconds are shared.
    `on_epoch(curves)` is called after each epoch. `test` and `test_every` as in `fit`.
    """
    if not isinstance(test_every, int) or test_every < 1:
        raise ValueError(f"test_every is {test_every!r}; it must be a number of epochs, at least 1")
    if test_every > 1 and any(run.recipe.schedule == "plateau" for run in runs):
        raise ValueError(f"test_every is {test_every}; with the schedule plateau it must be 1: the "
                         "learning rate follows the loss of every epoch")
    for run in runs:
        restore(run)
    with Writer() as writer, _bar(runs, progress) as bar:
        for epoch in range(max((run.recipe.epochs for run in runs), default=0)):
            due = [run for run in runs if len(run.curve) == epoch and not run.ended]
            if not due:
                continue
            for run in due:
                run.begin(epoch)
            for step in range(max(len(run.batches) for run in due)):
                for run in due:
                    if step < len(run.batches):
                        run.advance(step)
                        bar.update()
            entries = [run.end(epoch) for run in due]  # no clock runs while others are evaluated
            for run, entry in zip(due, entries, strict=True):
                due_test = (epoch + 1) % test_every == 0 or epoch + 1 == run.recipe.epochs
                run.record_epoch(entry | _tested(run, test if due_test else None))
                writer.save(run)
                bar.set_postfix(_shown(run.curve[-1]))
            if on_epoch is not None:
                on_epoch([run.curve for run in runs])
    return [run.curve for run in runs]


def _tested(run, test):
    if test is None:
        return {}
    with run.place(), run.autocast():
        if callable(test):
            return dict(test(run.net))
        return {f"test_{name}": value for name, value in scores(run.forward, test).items()}


def _shown(entry):
    names = [name for name in entry if name == "train_loss" or name.endswith("accuracy")]
    return {name: f"{entry[name]:.4g}" for name in names}


def _bar(runs, progress):
    """A context with a progress bar over the steps of all runs; without `progress` a silent one."""
    if not progress:
        return contextlib.nullcontext(
            SimpleNamespace(update=lambda: None, set_postfix=lambda _: None))
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the progress bar needs tqdm: pip install 'sagelib[book]', or "
                          "progress=False") from error
    total = sum(run.recipe.epochs * len(run.batches) for run in runs)
    done = sum(len(run.curve) * len(run.batches) for run in runs)
    return tqdm(total=total, initial=done, unit="step", mininterval=1, dynamic_ncols=True)
