"""The cells of a sweep as processes of this machine."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .worker import AGAIN, prepare

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from ..plans import RunSpec
    from .progress import SweepProgress
    from .worker import Settings

RETRIES = 2  # for what is not the notebook's fault: a killed process, a kernel that did not come up


def run_local(todo: Sequence[RunSpec], settings: Settings, out: str | Path, view: SweepProgress,
              jobs: int, threads: int) -> list[str]:
    """Run the cells as processes, `jobs` at a time; the names of those that failed.

    A killed one is tried again.
    """
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
                if is_temporary(ended) and tried < RETRIES:
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


def start(cell: RunSpec, settings: Settings, out: str | Path,
          threads: int) -> tuple[subprocess.Popen, Path]:
    """One attempt as a process with its own group, and its folder, where log.txt has its output."""
    folder = prepare(cell, settings, out)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads),
                   "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    with open(folder / "log.txt", "w") as log:
        worker = [sys.executable, "-m", "sagelib.bench.sweep.worker", str(folder)]
        process = subprocess.Popen(worker, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   start_new_session=True, env=environment)
    return process, folder


def stop(running: Collection[subprocess.Popen]) -> None:
    """End all attempts; the next sweep goes on from what they had saved."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def is_temporary(ended: int) -> bool:
    """Whether an attempt that ended with this status failed through no fault of its notebook."""
    return ended < 0 or ended == AGAIN


def reason(folder: Path, ended: int) -> str:
    """Why an attempt failed, in a line."""
    file = folder / "error.txt"
    if file.exists():
        return file.read_text().strip()
    return f"the process ended with {ended}; see log.txt"
