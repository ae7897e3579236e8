"""The training loop: handed a network, batches and a method, it knows none of them by name."""
import contextlib
from types import SimpleNamespace

from ..evaluate import scores
from .checkpoint import restore, save
from .recipe import Recipe
from .step import Run


def fit(net, batches, method, recipe=None, test=None, checkpoint=None, on_epoch=None,
        progress=False, graph=True):
    """Train `net` in place on `batches` with `method`; returns the curve, one dict an epoch.

    `test` is scored after every epoch: batches, or a function of the network that returns a dict
    for the curve. With `checkpoint`, a path, everything is saved there after each epoch, and a run
    that was killed goes on from there: to the same weights and curve, on the same machine and
    thread count. `on_epoch(curve)` is called after each epoch. A loss that is not finite raises
    FloatingPointError; the checkpoint then still holds the last good epoch.

    On a GPU no step waits for the host, and with `graph` the whole step, from the crop of the
    images to the update of the weights, is recorded as one CUDA graph; where that cannot be, a
    warning says why.
    """
    runs = [Run(net, batches, method, recipe or Recipe(), checkpoint, graph)]
    return fit_together(runs, test, on_epoch and (lambda curves: on_epoch(curves[0])), progress)[0]


def fit_together(runs, test=None, on_epoch=None, progress=False):
    """Train several runs (`Run`), such as seeds, step by step in turn: each comes out as if it were
    alone.

    On a GPU each has its own stream, so that one fills the gaps of another: for accuracy, not for
    timing, since seconds are shared. Returns the curves; `on_epoch(curves)` is called after each
    epoch.
    """
    for run in runs:
        restore(run)
    steps = sum(run.recipe.epochs * len(run.batches) for run in runs)
    done = sum(len(run.curve) * len(run.batches) for run in runs)
    with _bar(progress, steps, done) as bar:
        while waiting := [run for run in runs if len(run.curve) < run.recipe.epochs]:
            epoch = min(len(run.curve) for run in waiting)
            _epoch([run for run in waiting if len(run.curve) == epoch], epoch, test, bar)
            if on_epoch is not None:
                on_epoch([run.curve for run in runs])
    return [run.curve for run in runs]


def _epoch(runs, epoch, test, bar):
    """One epoch of these runs, a step of each in turn; then each is scored and saved, when no clock
    runs any more."""
    for run in runs:
        with run.place():
            run.begin(epoch)
    for k in range(max(len(run.batches) for run in runs)):
        for run in runs:
            if k < len(run.batches):
                with run.place():
                    run.advance(k)
                bar.update()
    entries = [run.end(epoch) for run in runs]
    for run, entry in zip(runs, entries, strict=True):
        with run.place():
            if test is not None:
                with run.autocast():
                    entry |= test(run.net) if callable(test) else {
                        f"test_{k}": v for k, v in scores(run.forward, test).items()}
        run.record_epoch(entry)
        save(run)
        bar.set_postfix({
            k: f"{v:.4g}"
            for k, v in entry.items()
            if k == "train_loss" or k.endswith("accuracy")
        })


def _bar(progress, total, done):
    if not progress:
        return contextlib.nullcontext(
            SimpleNamespace(update=lambda: None, set_postfix=lambda _: None))
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the progress bar needs tqdm: pip install 'sagelib[book]', or "
                          "progress=False") from error
    return tqdm(total=total, initial=done, unit="step", mininterval=1, dynamic_ncols=True)
