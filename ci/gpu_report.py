"""Tests, times and a profile on an NVIDIA GPU, in one command of under 8 minutes: see `ci/gpu`.

The steps run in this order, the most valuable first:

  tests       the tests that need a GPU, one by one with a time limit each
  step_times  a training step of vanilla, of SAGE and of its variants
  search      the search for the best shift
  profile     the most expensive kernels of vanilla's and SAGE's step
  packed      how many images a second 1 to 4 runs train on together
  training    seconds of and between epochs, and a training of two epochs
  methods     a training step of all other methods
  fp32        a training step of vanilla and SAGE in float32

Each has a time limit of its own, and a step that fails or hangs stops no other one. What is
measured is in the folder (summary.txt, summary.json, records, executed notebooks, logs) as soon as
it is known. Without a GPU the command checks what can be checked (the kernels compile, no step
needs a value on the host, the summary can be written), says so, and ends with status 0.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import gpu_summary
import time_limits

from sagelib import files

TOP = Path(__file__).resolve().parent.parent
LIMIT = 480  # seconds of the whole command
TEST_SECONDS = 60  # of each test
GPU_TESTS = ["ci/tests/test_gpu.py"]
CPU_TESTS = ["ci/tests/test_kernels.py",
             "ci/tests/test_step.py::test_no_value_of_a_step_leaves_the_device",
             "ci/tests/test_step.py::test_no_value_of_sages_step_leaves_the_device"]
BARE = ("torch", "numpy", "pytest", "papermill", "matplotlib")
VARIANTS = [["vanilla", {}], ["sage", {}], ["sage", {"fraction": 1.0}], ["sage", {"reuse": 0}],
            ["sage_merged", {}]]
FAST = dict(precision="bf16", channels_last=True, compile_network=True)
TINY = dict(width=4, batch=4, rounds=1)


@dataclass(frozen=True)
class Step:
    """Commands that run one after another.

    needs: seconds that it takes on an H200; it is skipped where fewer are left. limit: in seconds.
    """

    needs: float
    limit: float
    commands: tuple


def steps(out, root=None, rehearse=False):
    """name -> Step, in their order, without the tests.

    root: folder of CIFAR-10 for the training, or None. rehearse: tiny, on any device.
    """
    def notebook(name, into, **parameters):
        words = [sys.executable, "-m", "papermill", f"notebooks/experiments/{name}.ipynb",
                 out / f"{into}.ipynb", "--no-progress-bar"]
        for key, value in {**parameters, "results": str(out / into)}.items():
            words += ["-y", json.dumps({key: value})]
        return tuple(map(str, words))

    def measure(what):
        words = [sys.executable, "ci/gpu_measure.py", what, out, *["--small"] * rehearse]
        return tuple(map(str, words))

    def timed(into, sides, **how):
        small = TINY if rehearse else dict(width=64, batch=100, rounds=5)
        return notebook("step_time", into, sides=sides, **{**how, **small})

    fast = {**FAST, "compile_network": False} if rehearse else FAST
    search = dict(pairs=6, sizes=[12], rounds=1) if rehearse else dict(pairs=100, rounds=9)
    data = dict(dataset="cifar10", root=str(root)) if root else dict(dataset="shapes")
    train = dict(method="sage", epochs=2, width=4 if rehearse else 64, progress=False,
                 checkpoints=str(out / "checkpoints"), networks="", **data, **fast)
    return {
        "step_times": Step(40, 120, (timed("step_times", VARIANTS, **fast),)),
        "search": Step(20, 75, (measure("search"),
                                notebook("search_time", "search_time", **search))),
        "profile": Step(25, 75, (measure("profile"),)),
        "packed": Step(30, 90, (measure("packed"),)),
        "training": Step(40, 120, (measure("epochs"), notebook("train", "training", **train))),
        "methods": Step(60, 150, (timed("methods", others(rehearse), **fast),)),
        "fp32": Step(35, 90, (timed("fp32", VARIANTS[:2], precision="fp32"),)),
    }


def others(few=False):
    """Vanilla and the methods that VARIANTS does not have, without options.

    The network that is timed has no attention, and the methods that ask for some are left out.
    """
    timed = {name for name, _ in VARIANTS}
    names = [file.stem for file in sorted((TOP / "sagelib/methods").glob("[a-z]*.py"))
             if file.stem not in timed and "\nATTENTION = True" not in file.read_text()]
    return [["vanilla", {}], *([name, {}] for name in (names[:1] if few else names))]


NAMES = ("tests", *steps(Path("OUT")))


class Report:
    """The folder of one call, what came of each step so far, and the time that is left."""

    def __init__(self, out, limit):
        self.out, self.until, self.states = out, time.monotonic() + limit, {}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self):
        return self.until - time.monotonic()

    def note(self, name, state, seconds=0.0, why=""):
        """Write what came of a step, and the summary of all that is known."""
        self.states[name] = {"state": state, "seconds": round(seconds, 1), "why": why}
        say(f"{name}: {state}" + (f" ({why})" if why else f", {seconds:.0f} s"))
        self.write("steps.json", json.dumps(self.states, indent=1))
        found = gpu_summary.collected(self.out)
        self.write("summary.json", json.dumps(found, indent=1))
        self.write("summary.txt", gpu_summary.as_text(found).rstrip("\n"))

    def write(self, name, text):
        files.replace(self.out / name, text + "\n")

    @property
    def fine(self):
        return all(state["state"] in ("ok", "skipped") for state in self.states.values())


def say(line):
    print(line, flush=True)


def main():
    asked = arguments()
    missing = [name for name in BARE if importlib.util.find_spec(name) is None]
    if missing:
        say(f"{sys.executable} lacks {', '.join(missing)}: what needs them will fail")
    report = Report(asked.out, asked.limit)
    say(f"ci/gpu, into {asked.out}")
    run_commands("machine", report, 60, (
        (sys.executable, "ci/gpu_measure.py", "machine", str(asked.out)),))
    found = gpu_summary.read(asked.out / "machine.json", {})
    gpu = bool(found.get("gpu"))
    if not gpu:
        say("no NVIDIA GPU, or torch cannot use it: checking what a CPU can check")
    if "tests" in asked.only:
        run_tests(report, GPU_TESTS if gpu else CPU_TESTS, asked.k)
    for name, step in steps(asked.out, asked.root, asked.rehearse).items():
        if name not in asked.only:
            continue
        if not gpu and not asked.rehearse:
            report.note(name, "skipped", why="no GPU")
        elif report.left < step.needs:
            say(f"{name} needs {step.needs} s, and {max(0, report.left):.0f} are left")
            report.note(name, "skipped", why="no time left")
        else:
            run_commands(name, report, min(step.limit, report.left), step.commands)
    if not gpu:
        report.write("summary_example.txt", "MADE-UP NUMBERS, to check that the summary can be "
                     "written\n" + gpu_summary.as_text(gpu_summary.made_up()).rstrip("\n"))
    say("\n" + (asked.out / "summary.txt").read_text())
    return 0 if report.fine else 1


def run_tests(report, tests, expression=None):
    """The tests, into tests.json; each that fails is named at once."""
    limit, start = min(200, report.left), time.monotonic()
    if limit < 5:
        report.note("tests", "skipped", why="no time left")
        return
    say(f"== tests: {TEST_SECONDS} s each, {limit:.0f} s in all")
    words = [*tests, *(["-k", expression] if expression else [])]
    found = time_limits.run(words, report.out, seconds=TEST_SECONDS, within=limit, cwd=TOP,
                            environment=environment(), say=lambda line: say(f"  {line}"))
    report.write("tests.json", json.dumps(found, indent=1))
    bad = [t for t in found if t["outcome"] not in time_limits.FINE]
    report.note("tests", "failed" if bad else "ok", time.monotonic() - start,
                f"{len(bad)} of {len(found)}" if bad else "")


def run_commands(name, report, limit, commands):
    """Commands one after another, with one time limit; what they print goes to NAME.log."""
    say(f"== {name}: at most {limit:.0f} s")
    start, log, why = time.monotonic(), report.out / f"{name}.log", []
    log.unlink(missing_ok=True)
    for words in commands:
        left = limit - (time.monotonic() - start)
        status = call(words, log, left) if left > 1 else None
        if status is None:
            why.append(f"over {limit:.0f} s")
            break
        if status:
            last = [line.strip() for line in log.read_text().splitlines() if line.strip()]
            say("\n    ".join([f"  status {status}; the end of {log.name}:", *last[-6:]]))
            why.append(last[-1][:80] if last else f"status {status}")
    state = "timed out" if why and status is None else "failed" if why else "ok"
    report.note(name, state, time.monotonic() - start, "; ".join(why))


def call(words, log, limit):
    """The exit status of a command; None if it was ended after `limit` seconds."""
    with open(log, "a") as out:
        process = subprocess.Popen(words, cwd=TOP, env=environment(), stdout=out,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process)


def end(process):
    """End a process that still runs and all that it started, such as a notebook's kernel."""
    if process.poll() is not None:
        return
    started = [process.pid, *descendants(process.pid)]
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def descendants(pid):
    """The processes below one, where Linux lists them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:  # the name in brackets may hold spaces
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def environment():
    """The variables of a step: sagelib of this checkout, and quiet notebooks."""
    paths = [str(TOP), os.environ.get("PYTHONPATH")]
    return {"OMP_NUM_THREADS": "4", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "JUPYTER_PLATFORM_DIRS": "1", **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def arguments():
    """The command line; SystemExit names a step that does not exist."""
    ask = argparse.ArgumentParser(prog="ci/gpu", description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--only", metavar="STEP[,STEP]", default=",".join(NAMES))
    ask.add_argument("--limit", metavar="SECONDS", type=float, default=LIMIT,
                     help=f"of the whole command, {LIMIT} unless told: steps that do not fit into "
                          "the rest are skipped")
    ask.add_argument("--root", type=Path, help="folder of CIFAR-10, for the training")
    ask.add_argument("--out", type=Path,
                     default=TOP / "runs" / f"gpu-{datetime.now():%Y-%m-%d-%H%M%S}")
    ask.add_argument("-k", metavar="EXPRESSION", help="only these tests, as in pytest")
    ask.add_argument("--rehearse", action="store_true",
                     help="run the steps tiny, on the CPU, where there is no GPU")
    asked = ask.parse_args()
    asked.only = asked.only.split(",")
    unknown = [name for name in asked.only if name not in NAMES]
    if unknown:
        ask.error(f"unknown step {', '.join(unknown)}; known: {', '.join(NAMES)}")
    asked.out = asked.out.resolve()
    asked.root = asked.root.resolve() if asked.root else None
    return asked


if __name__ == "__main__":
    sys.exit(main())
