"""The cells of a sweep as tasks of a Ray cluster: a share of a GPU each, tried again when a worker
or a node dies.

The folders of a sweep, its attempts, checkpoints and records, must be the same on all nodes (a
shared file system).
"""
import os
from pathlib import Path

from ...machine import cores
from .local import AGAIN, RETRIES, reason, start


class Again(Exception):
    """An attempt that ended through no fault of its notebook."""


def run_cells(todo, settings, out, view, threads=1, address=None, gpus=0.0):
    """Run the cells on the cluster at `address` ("auto": the one this machine is in), or on one
    started here; returns the names of those that failed. `threads`: cores of a cell; `gpus`: its
    share of a GPU."""
    try:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        import ray
    except ImportError as error:
        raise ImportError("a sweep on Ray needs it: pip install 'sagelib[cluster]'") from error
    if not ray.is_initialized():
        own = {} if address else {"num_cpus": cores()}  # of a cluster started here
        ray.init(address=address, include_dashboard=False, log_to_driver=False,
                 configure_logging=False, **own)
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES,
                      retry_exceptions=[Again])(attempt)
    waiting, failed = {task.remote(cell, settings, str(out), threads): cell for cell in todo}, []
    begun = {cell.name: attempts(cell, out) for cell in todo}
    try:
        while waiting:
            for cell in waiting.values():
                if attempts(cell, out) > begun[cell.name]:
                    begun[cell.name] = attempts(cell, out)
                    view.started(cell)
            for ready in ray.wait(list(waiting), timeout=1)[0]:
                cell = waiting.pop(ready)
                why, folder = outcome(ray, ready)
                if why is None:
                    view.done(cell)
                else:
                    failed.append(cell.name)
                    view.failed(cell, why, folder)
    finally:  # nothing is left running, also after Ctrl-C
        for ready in waiting:
            ray.cancel(ready, force=True)
        ray.shutdown()
    return failed


def attempts(cell, out):
    """How many attempts at a cell there were so far."""
    return len(list((Path(out) / "attempts" / cell.name).glob("*")))


def attempt(cell, settings, out, threads):
    """One attempt at a cell, on whichever node: (why it failed or None, its folder). Again if it
    was killed."""
    process, folder = start(cell, settings, out, threads)
    ended = process.wait()
    if ended < 0 or ended == AGAIN:
        raise Again(reason(folder, ended))
    return (reason(folder, ended) if ended else None), str(folder)


def outcome(ray, ready):
    """What became of a task, also where Ray gave it up."""
    try:
        return ray.get(ready)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1], "the attempts of this cell"
