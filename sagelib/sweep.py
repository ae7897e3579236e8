"""Run a plan: every cell that has no record yet, in processes of this machine.

    python -m sagelib.sweep book/plans/table_1.yml --size laptop --root data

A record is published in one step, so a sweep may be stopped in any way and started again: it goes on where it was,
each run from its last checkpoint. A cell that fails leaves its notebook and a line that says why; the others go on.
"""
import argparse
import fcntl
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import _plan, records
from ._attempt import AGAIN, done, prepare
from ._view import View, hours

RETRIES = 2  # for what is not the notebook's fault: a killed process, a kernel that did not come up


def run(plan, size="paper", *, root="data", results=records.RESULTS, out="runs/sweep", jobs=None,
        threads=1, device="", only=(), say=None):
    """Run what is missing of a plan (a YAML file) at a size; returns the names of the cells that failed.

    `jobs` cells at a time, with `threads` threads each. KeyboardInterrupt stops the running attempts and is passed on.
    """
    say = say or functools.partial(print, flush=True)
    title, cells = _plan.read(plan, size)
    cells = [c for c in cells if all(str(c.parameters.get(k)) == v for k, v in only)]
    todo = [c for c in cells if not done(c, results)]
    say(f"{title}, size {size}: {len(cells)} cells, {len(cells) - len(todo)} done, {len(todo)} to run")
    if not todo:
        return []
    settings = {"root": str(Path(root).resolve()), "device": device, "results": str(results)}
    view = View(todo, say)
    with alone(out):
        return run_local(todo, settings, out, view, jobs or max(1, (os.cpu_count() or 1) // threads), threads)


def run_local(todo, settings, out, view, jobs, threads):
    """The cells as processes, `jobs` at a time; a killed one is tried again."""
    waiting, running, failed = [(cell, 0) for cell in todo], {}, []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell, tried = waiting.pop(0)
                process, folder = start(cell, settings, out, threads)
                running[process] = cell, tried, folder
                view.started(cell)
            time.sleep(0.2)
            for process in [p for p in running if p.poll() is not None]:
                cell, tried, folder = running.pop(process)
                ended = process.returncode
                if ended != 0 and (ended < 0 or ended == AGAIN) and tried < RETRIES:
                    waiting.append((cell, tried + 1))
                    view.again(cell)
                elif ended != 0:
                    failed.append(cell.name)
                    view.failed(cell, reason(folder, ended), folder)
                else:
                    view.done(cell)
    except KeyboardInterrupt:
        stop(running)
        raise
    return failed


def start(cell, settings, out, threads):
    """One attempt as a process in a group of its own; its output goes to log.txt in its folder."""
    folder = prepare(cell, settings, out)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "sagelib._attempt", str(folder)], stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
    return process, folder


def stop(running):
    """End all attempts; what they had saved is taken up by the next sweep."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def reason(folder, ended):
    """Why an attempt failed, in a line."""
    file = folder / "error.txt"
    return file.read_text().strip() if file.exists() else f"the process ended with {ended}; see log.txt"


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
    ask.add_argument("--dry-run", action="store_true", help="say what would run, and its GPU hours on a T4")
    asked = ask.parse_args(words)
    only = [tuple(pair.split("=", 1)) for pair in asked.only]
    try:
        if asked.dry_run:
            return show(asked.plan, asked.size, asked.results, only)
        failed = run(asked.plan, asked.size, root=asked.root, results=asked.results, out=asked.out,
                     jobs=asked.jobs, threads=asked.threads, device=asked.device, only=only)
    except (ValueError, FileNotFoundError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        return 130
    return 1 if failed else 0


def show(plan, size, results, only):
    """What would run, with estimated hours."""
    title, cells = _plan.read(plan, size)
    todo = [c for c in cells if all(str(c.parameters.get(k)) == v for k, v in only) and not done(c, results)]
    for cell in todo:
        print(f"{hours(cell):8.2f}  {cell.name}  {cell.parameters}")
    print(f"{sum(map(hours, todo)):8.2f}  GPU hours on a T4, estimated from the paper's Table 6, for {len(todo)} of "
          f"{len(cells)} cells: {title}, size {size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
