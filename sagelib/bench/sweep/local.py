"""The cells of a sweep as processes of this machine."""
import os
import signal
import subprocess
import sys
import time

from .worker import AGAIN, prepare

RETRIES = 2  # for what is not the notebook's fault: a killed process, a kernel that did not come up


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
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "PYDEVD_DISABLE_FILE_VALIDATION": "1"
    }
    with open(folder / "log.txt", "w") as log:
        worker = [sys.executable, "-m", "sagelib.bench.sweep.worker", str(folder)]
        process = subprocess.Popen(worker, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   start_new_session=True, env=environment)
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
    return file.read_text().strip() if file.exists(
    ) else f"the process ended with {ended}; see log.txt"
