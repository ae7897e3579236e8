"""Tests one by one with a time limit each, in one process where possible.

pytest loads this file as a plugin (`-p time_limits`). Each test is interrupted at its limit by
SIGALRM. Python delivers a signal only between its own instructions, so a test that hangs inside
CUDA does not notice: `run` watches from outside, kills the process a little later, and starts
another one for the remaining tests. It does so too after a crash, a time-out or an error of CUDA,
which leave a process in a state that no further test should see.

Both sides share a file of lines in JSON: {"collected": [test, ...]}, {"start": test} and
{"end": test, "outcome": ..., "seconds": ..., "message": ...}. Whatever happens, all that is known
is on the disk.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FINE = ("passed", "skipped")
# the device stays in this state until the process ends
STICKY = ("CUDA error", "AcceleratorError", "device-side assert", "illegal memory access")
GRACE = 10  # seconds that a test may take to end after its interruption
STARTUP = 150  # seconds until the first test starts: imports and collection
POLL = 0.1
NO_TIME = "no time"


# the plugin, in pytest's process


def pytest_addoption(parser):
    group = parser.getgroup("time limits")
    group.addoption("--limits-file", help="the file of lines in JSON")
    group.addoption("--limit-seconds", type=float, default=60, help="of each test")


def pytest_configure(config):
    if config.getoption("--limits-file"):
        limits = Limits(config.getoption("--limits-file"), config.getoption("--limit-seconds"))
        config.pluginmanager.register(limits, "time limits at work")


class Limits:
    """Notes each test's start and end, and interrupts the ones that take too long."""

    def __init__(self, file, seconds):
        self.file, self.seconds = Path(file), seconds
        self.reports, self.timed_out = [], False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        append(self.file, {"collected": [item.nodeid for item in items]})
        done = {event["end"] for event in read(self.file) if "end" in event}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        items[:] = [item for item in items if item.nodeid not in done]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.reports, self.timed_out, start = [], False, time.monotonic()
        append(self.file, {"start": item.nodeid})
        result = yield
        outcome, message = verdict(self.reports, self.timed_out)
        append(self.file, {"end": item.nodeid, "outcome": outcome, "message": message,
                           "seconds": round(time.monotonic() - start, 3)})
        broken = outcome == "failed" and any(word in message for word in STICKY)
        if outcome == "timed out" or broken:
            item.session.shouldstop = "the rest needs a new process"
        return result

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self):
        return (yield from self._limited())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self):
        return (yield from self._limited())

    def _limited(self):
        before = signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _interrupt(self, number, frame):
        self.timed_out = True
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "?"
        pytest.fail(f"took longer than {self.seconds:g} s, then in {place}")


def verdict(reports, timed_out):
    """(outcome, message) of a test from the reports of its phases; "" for a test that passed."""
    bad = next((r for r in reports if r.failed), None)
    if bad is not None:
        crash = getattr(bad.longrepr, "reprcrash", None)
        text = crash.message if crash else str(bad.longrepr)
        if timed_out:
            return "timed out", first_lines(text).removeprefix("Failed: ")
        place = f" ({Path(crash.path).name}:{crash.lineno})" if crash else ""
        return "failed", first_lines(text) + place
    skipped = next((r for r in reports if r.skipped), None)
    if skipped is not None:
        reason = skipped.longrepr[2] if isinstance(skipped.longrepr, tuple) else ""
        return "skipped", first_lines(reason.removeprefix("Skipped: "))
    return "passed", ""


def first_lines(text, lines=3, width=300):
    """The first lines of a message that say something."""
    found = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(found[:lines])[:width]


# both sides


def append(file, event):
    """Add a line to the file, at once."""
    with open(file, "a") as out:
        out.write(json.dumps(event) + "\n")


def read(file):
    """The events so far; a line that is being written is left for later."""
    file = Path(file)
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]


# the watch, in another process


def run(words, folder, *, seconds=60, within=float("inf"), grace=GRACE, startup=STARTUP, cwd=None,
        environment=None, say=print):
    """Run pytest on `words`, each test for `seconds` at most, all of them `within` seconds.

    Returns a list of dicts: name, outcome ("passed", "skipped", "failed", "timed out", "crashed" or
    "not run"), seconds, message. tests.jsonl and tests.log in `folder` are written meanwhile.
    say: called with a line about each test that neither passed nor was skipped.
    """
    file, log = Path(folder) / "tests.jsonl", Path(folder) / "tests.log"
    for old in (file, log):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "time_limits", "-p", "no:cacheprovider",
               "-o", f"faulthandler_timeout={seconds + grace / 2}", "--limits-file", file,
               "--limit-seconds", seconds, *words]
    environment = {**os.environ, **(environment or {})}
    paths = [str(Path(__file__).parent), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    until, news = time.monotonic() + within, News(file, say)
    while True:
        before = len(ended(file))
        with open(log, "a") as out:
            process = subprocess.Popen([*map(str, command)], cwd=cwd, env=environment, stdout=out,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
            try:
                why = watch(process, file, seconds + grace, startup, until, news)
            finally:
                kill(process)
        note_the_running_one(file, process.returncode, why)
        news.tell()
        if why == NO_TIME or len(ended(file)) == before or not waiting(file):
            return results(file, log)


def watch(process, file, limit, startup, until, news):
    """Wait for a pytest process. Returns why it is to be killed, or None where it has ended."""
    seen, since = len(of_tests(file)), time.monotonic()
    while process.poll() is None:
        events = of_tests(file)
        if len(events) != seen:  # a test has started or ended
            seen, since = len(events), time.monotonic()
            news.tell()
        if time.monotonic() > until:
            return NO_TIME
        begun = bool(events) and "start" in events[-1]
        if time.monotonic() - since > (limit if begun else startup):
            return f"took longer than {limit:g} s and reacts to no interrupt"
        time.sleep(POLL)
    return None


def kill(process):
    """End a process that still runs, with its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def note_the_running_one(file, status, why):
    """Write the end of the test that was running when its process ended, if there was one."""
    events = of_tests(file)
    if not events or "start" not in events[-1]:
        return
    if why is None:
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        outcome, message = "crashed", f"its process ended {how}: see tests.log"
    elif why == NO_TIME:
        outcome, message = "not run", "the time for all tests was over while it ran"
    else:
        outcome, message = "timed out", why
    append(file, {"end": events[-1]["start"], "outcome": outcome, "message": message,
                  "seconds": None})


def of_tests(file):
    """The events of single tests so far."""
    return [event for event in read(file) if "collected" not in event]


def ended(file):
    """The events of tests that have ended, in their order."""
    return [event for event in read(file) if "end" in event]


def waiting(file):
    """Names of collected tests that have not ended."""
    collected = next((event["collected"] for event in read(file) if "collected" in event), [])
    done = {event["end"] for event in ended(file)}
    return [name for name in collected if name not in done]


class News:
    """Says once what came of each test that neither passed nor was skipped."""

    def __init__(self, file, say):
        self.file, self.say, self.told = file, say, 0

    def tell(self):
        found = ended(self.file)
        for event in found[self.told:]:
            if event["outcome"] not in FINE:
                first = " | ".join(event["message"].splitlines()[:2])
                self.say(f"{event['outcome'].upper()} {short(event['end'])}: {first}")
        self.told = len(found)


def short(name):
    """A test's name without its folder."""
    return name.rsplit("/", 1)[-1]


def results(file, log):
    """All that is known of all tests; one made-up entry where pytest found none."""
    found = [{"name": e["end"], **{k: e[k] for k in ("outcome", "seconds", "message")}}
             for e in ended(file)]
    found += [{"name": name, "outcome": "not run", "seconds": None, "message": ""}
              for name in waiting(file)]
    if not found:
        last = first_lines("\n".join(Path(log).read_text().splitlines()[-3:]))
        found = [{"name": "collection", "outcome": "failed", "seconds": None, "message": last}]
    return found
