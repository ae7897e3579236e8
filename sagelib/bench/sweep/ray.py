"""The cells of a sweep as tasks of a Ray cluster, each with a share of a GPU.

A task is tried again when its worker or node dies. The folders of a sweep, its attempts,
checkpoints and records, must be the same on all nodes (a shared file system).
"""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...machine import cores
from .local import RETRIES, is_temporary, reason, start
from .worker import attempts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..plans import RunSpec
    from .progress import SweepProgress
    from .worker import Settings


class Again(Exception):
    """An attempt that ended through no fault of its notebook."""


def run_cells(todo: Sequence[RunSpec], settings: Settings, out: str | Path, view: SweepProgress,
              threads: int = 1, address: str | None = None, gpus: float = 0.0) -> list[str]:
    """Run the cells on a cluster; the names of those that failed.

    threads: cores of a cell. address: of the cluster, "auto" for the one that this machine is in;
    without it one is started here. gpus: a cell's share of a GPU.
    """
    try:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        import ray
    except ImportError as error:
        raise ImportError("a sweep on Ray needs it: pip install 'sagelib[cluster]'") from error
    if not ray.is_initialized():
        ray.init(address=address, num_cpus=None if address else cores(), include_dashboard=False,
                 log_to_driver=False, configure_logging=False)
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES,
                      # pyrefly: ignore[bad-argument-type]  (Ray takes a list of errors too)
                      retry_exceptions=[Again])(attempt)
    waiting, failed = {task.remote(cell, settings, str(out), threads): cell for cell in todo}, []
    begun = {cell.name: tried(cell, out) for cell in todo}
    try:
        while waiting:
            for cell in waiting.values():
                if (now := tried(cell, out)) > begun[cell.name]:
                    begun[cell.name] = now
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


def tried(cell: RunSpec, out: str | Path) -> int:
    """How many attempts at a cell there were so far."""
    return len(list(attempts(cell, out).glob("*")))


def attempt(cell: RunSpec, settings: Settings, out: str | Path,
            threads: int) -> tuple[str | None, str]:
    """One attempt at a cell: why it failed, or None, and its folder; `Again` if it was killed."""
    process, folder = start(cell, settings, out, threads)
    ended = process.wait()
    if is_temporary(ended):
        raise Again(reason(folder, ended))
    return (reason(folder, ended) if ended else None), str(folder)


def outcome(ray: Any, ready: Any) -> tuple[str | None, str]:
    """What became of a task, also where Ray gave it up."""
    try:
        return ray.get(ready)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1], "the attempts of this cell"
