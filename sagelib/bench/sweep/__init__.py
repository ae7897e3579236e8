"""Run a plan: every cell without a record, in processes of this machine or on a Ray cluster.

    python -m sagelib.bench.sweep book/plans/table_1.yml --size laptop --root data

A record is published in one step, so a sweep may be stopped in any way and started again: it goes
on where it was, each run from its last checkpoint. A cell that fails leaves its notebook and a line
that says why; the others go on.

An evaluation needs the network. Where its record is there and its weights are not, as in a fresh
clone, the run is trained again; the record stays, and the evaluation added to it says if it is
about a network with another curve.
"""
from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...machine import cores
from .. import plans, records
from . import opening
from .estimate import hours as hours
from .estimate import table
from .local import run_local
from .progress import SweepProgress
from .worker import RETRAIN, TRAIN, recover, remaining, unpublished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..plans import RunSpec

    Only = Sequence[tuple[str, str]]  # (parameter, value as a word)


def run(plan: str | Path, size: str = "paper", *, root: str | Path = "data",
        results: str | Path = records.RESULTS, out: str | Path = "runs/sweep",
        jobs: int | None = None, threads: int = 1, device: str = "", only: Only = (),
        backend: str = "local", say: Callable[[str], object] | None = None,
        **cluster: Any) -> list[str]:
    """Run what is missing of a plan (a YAML file) at a size; the names of the cells that failed.

    backend "local": `jobs` cells at a time on this machine, with `threads` threads each, by default
    as many as this process has cores for; "ray": tasks of the cluster at `address`, with `threads`
    cores and `gpus` of a GPU each. KeyboardInterrupt stops the attempts and is passed on.
    """
    say = say or functools.partial(print, flush=True)
    title, cells = chosen(plan, size, only)
    left = remaining(cells, results, out)
    with alone(out, say) if left else contextlib.nullcontext():
        untrained = [cell for cell, what in left if what == TRAIN]
        finished = [place for cell in untrained for place in recover(cell, out, results)]
        if finished:
            say(f"published: {len(finished)} that an earlier attempt had finished")
            left = remaining(cells, results, out)
        todo, again = [cell for cell, _ in left], sum(what == RETRAIN for _, what in left)
        retrained = f", {again} of them trained again, since their weights are not here"
        say(f"{title}, size {size}: {len(cells)} cells, {len(cells) - len(todo)} done, "
            f"{len(todo)} to run{retrained if again else ''}")
        if not todo:
            return []
        settings = {"root": str(Path(root).resolve()), "device": device, "results": str(results)}
        view = SweepProgress(todo, say)
        if backend == "ray":
            from .ray import run_cells
            return run_cells(todo, settings, out, view, threads, **cluster)
        return run_local(todo, settings, out, view, jobs or max(1, cores() // threads), threads)


def chosen(plan: str | Path, size: str, only: Only = ()) -> tuple[str, list[RunSpec]]:
    """The plan's title and its cells with these values of parameters; ValueError if none has."""
    title, cells = plans.read(plan, size)
    found = [c for c in cells if all(str(c.parameters.get(name)) == word for name, word in only)]
    if not cells:
        raise ValueError(f"{plan} has no cells at size {size}")
    if not found:
        has = {name: sorted({str(c.parameters.get(name)) for c in cells}) for name, _ in only}
        raise ValueError(f"no cell of the plan has {', '.join('='.join(pair) for pair in only)}; "
                         f"of its {len(cells)} cells, size {size}, " +
                         "; ".join(f"{k} is {' or '.join(v)}" for k, v in has.items()))
    return title, found


@contextlib.contextmanager
def alone(out: str | Path, say: Callable[[str], object] = print) -> Iterator[None]:
    """Inside `with`, the only sweep that works in this folder; RuntimeError if there is one.

    Where the file system has no locks, a warning: two sweeps there would only do work twice, since
    the first record of a run stays.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "sweep.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another sweep works in {out}; wait for it, or give this one "
                               "another --out") from None
        except OSError as error:
            say(f"warning: {out} is on a file system without locks ({error.strerror}): "
                "start no other sweep with this --out meanwhile")
        yield


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of the command line as an object; `only` is a list of pairs."""
    ask = argparse.ArgumentParser(prog="python -m sagelib.bench.sweep",
                                  description=__doc__.split("\n")[0])
    add = ask.add_argument
    add("plan", help="a plan, such as book/plans/table_1.yml")
    add("--size", default="paper", help=f"{', '.join(plans.sizes())} (book/plans/sizes.yml)")
    add("--root", default="data", help="folder of the data sets; missing ones are downloaded there")
    add("--results", default=str(records.RESULTS), help="where records go (book/results)")
    add("--out", default="runs/sweep", help="attempts, checkpoints and networks")
    add("--only", nargs="*", default=[], metavar="NAME=VALUE",
        help="cells with these parameters alone")
    add("--jobs", type=int, help="cells at a time; by default one for each core of this process")
    add("--threads", type=int, default=1, help="threads of a cell")
    add("--device", default="", help="cpu, cuda, …; by default a GPU if there is one")
    add("--backend", choices=["local", "ray"], default="local")
    add("--address", help="of a Ray cluster, or auto; by default one is started here")
    add("--gpus", type=float, default=0.0, help="share of a GPU for each cell, on Ray")
    add("--dry-run", action="store_true", help="say what would run, and how long")
    asked = ask.parse_args(words)
    for pair in asked.only:
        if "=" not in pair:
            ask.error(f"--only takes NAME=VALUE, such as method=sage, not {pair!r}")
    asked.only = [tuple(pair.split("=", 1)) for pair in asked.only]
    return asked


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    asked = arguments(words)
    # Ctrl-C, also where a shell had it ignored, and a scheduler's way
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.default_int_handler)
    try:
        if asked.dry_run:
            return show(asked.plan, asked.size, asked.results, asked.only, asked.out)
        cluster = {"address": asked.address, "gpus": asked.gpus} if asked.backend == "ray" else {}
        failed = run(asked.plan, asked.size, root=asked.root, results=asked.results, out=asked.out,
                     jobs=asked.jobs, threads=asked.threads, device=asked.device, only=asked.only,
                     backend=asked.backend, **cluster)
    except (ValueError, FileNotFoundError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        return 130
    return 1 if failed else 0


def show(plan: str | Path, size: str, results: str | Path, only: Only, out: str | Path) -> int:
    """Print the result to expect by plan and records, and what would run, with estimated hours."""
    title, cells = chosen(plan, size, only)
    left = remaining(cells, results, out)
    finished = "an earlier attempt finished: it is published"
    what = [finished if why == TRAIN and unpublished(cell, out) else why for cell, why in left]
    if expected := opening.result(plan):
        print(*expected, "", sep="\n")
    print(f"{title}, size {size}: {len(left)} of {len(cells)} cells are to run")
    if left:
        notes = ["" if why == TRAIN else f"  ({why})" for why in what]
        print(*table([cell for cell, _ in left], notes), sep="\n")
    return 0
