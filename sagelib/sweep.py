"""Run a plan: every cell that has no record yet, in processes of this machine or as tasks of a Ray cluster.

    python -m sagelib.sweep book/plans/table_1.yml --size laptop --root data

A record is published in one step, so a sweep may be stopped in any way and started again: it goes on where it was,
each run from its last checkpoint. A cell that fails leaves its notebook and a line that says why; the others go on.
"""
import argparse
import fcntl
import functools
import os
import signal
import sys
from pathlib import Path

from . import _plan, records
from ._attempt import done
from ._local import run_local
from ._view import View, hours


def run(plan, size="paper", *, root="data", results=records.RESULTS, out="runs/sweep", jobs=None,
        threads=1, device="", only=(), backend="local", say=None, **cluster):
    """Run what is missing of a plan (a YAML file) at a size; returns the names of the cells that failed.

    backend "local": `jobs` cells at a time on this machine, with `threads` threads each; "ray": tasks of the cluster at
    `address`, with `threads` cores and `gpus` of a GPU each. KeyboardInterrupt stops the attempts and is passed on.
    """
    say = say or functools.partial(print, flush=True)
    title, cells = chosen(plan, size, only)
    todo = [c for c in cells if not done(c, results)]
    say(f"{title}, size {size}: {len(cells)} cells, {len(cells) - len(todo)} done, {len(todo)} to run")
    if not todo:
        return []
    settings = {"root": str(Path(root).resolve()), "device": device, "results": str(results)}
    view = View(todo, say)
    with alone(out):
        if backend == "ray":
            from ._ray import run_cells
            return run_cells(todo, settings, out, view, threads, **cluster)
        return run_local(todo, settings, out, view, jobs or max(1, (os.cpu_count() or 1) // threads), threads)


def chosen(plan, size, only=()):
    """The plan's title, and its cells with these (parameter, value as a word) alone; ValueError if there is none."""
    title, cells = _plan.read(plan, size)
    found = [c for c in cells if all(str(c.parameters.get(name)) == word for name, word in only)]
    if not cells:
        raise ValueError(f"{plan} has no cells at size {size}")
    if not found:
        has = {name: sorted({str(c.parameters.get(name)) for c in cells}) for name, _ in only}
        raise ValueError(f"no cell of the plan has {', '.join('='.join(pair) for pair in only)}; of its {len(cells)} "
                         f"cells, size {size}, " + "; ".join(f"{k} is {' or '.join(v)}" for k, v in has.items()))
    return title, found


class alone:
    """Inside `with`, the only sweep that works in this folder; RuntimeError if there is one."""

    def __init__(self, out):
        self.out = Path(out)

    def __enter__(self):
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = open(self.out / "sweep.lock", "w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise RuntimeError(f"another sweep works in {self.out}; wait for it, or give this one another "
                               "--out") from None

    def __exit__(self, *_):
        self.file.close()


def main(words=None):
    """The command line; returns the exit status."""
    ask = argparse.ArgumentParser(prog="python -m sagelib.sweep", description=__doc__.split("\n")[0])
    ask.add_argument("plan", help="a plan, such as book/plans/table_1.yml")
    ask.add_argument("--size", default="paper", help="paper, short, laptop or tiny (book/plans/sizes.yml)")
    ask.add_argument("--root", default="data", help="folder of the data sets; what is missing is downloaded there")
    ask.add_argument("--results", default=str(records.RESULTS), help="where records go (book/results)")
    ask.add_argument("--out", default="runs/sweep", help="attempts, checkpoints and networks")
    ask.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE", help="cells with these parameters alone")
    ask.add_argument("--jobs", type=int, help="cells at a time; by default as many as there are cores for")
    ask.add_argument("--threads", type=int, default=1, help="threads of a cell")
    ask.add_argument("--device", default="", help="cpu, cuda, …; by default a GPU if there is one")
    ask.add_argument("--backend", choices=["local", "ray"], default="local")
    ask.add_argument("--address", help="of a Ray cluster, or auto; by default one is started here")
    ask.add_argument("--gpus", type=float, default=0.0, help="share of a GPU for each cell, on Ray")
    ask.add_argument("--dry-run", action="store_true", help="say what would run, and its GPU hours on a T4")
    asked = ask.parse_args(words)
    for kind in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, also where a shell had it ignored, and a scheduler's way
        signal.signal(kind, signal.default_int_handler)
    for pair in asked.only:
        if "=" not in pair:
            ask.error(f"--only takes NAME=VALUE, such as method=sage, not {pair!r}")
    only = [tuple(pair.split("=", 1)) for pair in asked.only]
    try:
        if asked.dry_run:
            return show(asked.plan, asked.size, asked.results, only)
        cluster = {"address": asked.address, "gpus": asked.gpus} if asked.backend == "ray" else {}
        failed = run(asked.plan, asked.size, root=asked.root, results=asked.results, out=asked.out,
                     jobs=asked.jobs, threads=asked.threads, device=asked.device, only=only, backend=asked.backend,
                     **cluster)
    except (ValueError, FileNotFoundError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        return 130
    return 1 if failed else 0


def show(plan, size, results, only):
    """What would run, with estimated hours."""
    title, cells = chosen(plan, size, only)
    todo = [c for c in cells if not done(c, results)]
    for cell in todo:
        print(f"{hours(cell):8.2f}  {cell.name}  {cell.parameters}")
    print(f"{sum(map(hours, todo)):8.2f}  GPU hours on a T4, estimated from the paper's Table 6, for {len(todo)} of "
          f"{len(cells)} cells: {title}, size {size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
