"""ci/gpu: the time limits of its tests, what fits into its time, its summary, its path without a
GPU."""

import ast
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gpu_measure
import gpu_report
import gpu_summary
import pytest
import time_limits
import torch
import yaml
from sweeps import wait

from sagelib import catalog, methods, models
from sagelib.bench import parameters, plans
from sagelib.bench.paths import TOP

TESTS = """
import os, signal, time
import pytest

def test_passes(): assert 1 + 1 == 2

def test_fails(): assert 1 + 1 == 3, "one and one"

def test_sleeps(): time.sleep(600)

@pytest.mark.skip(reason="not here")
def test_skipped(): pass

def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)

@pytest.mark.parametrize("k", [1, 2])
def test_after(k): assert k

def test_breaks_the_device(): raise RuntimeError("CUDA error: an illegal memory access")

def test_crashes(): os.kill(os.getpid(), signal.SIGKILL)

def test_last(): pass
"""
OUTCOMES = {"passes": "passed", "fails": "failed", "sleeps": "timed out", "skipped": "skipped",
            "hangs": "timed out", "after[1]": "passed", "after[2]": "passed",
            "breaks_the_device": "failed", "crashes": "crashed", "last": "passed"}


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """(results by test, lines that were said, folder) of TESTS with a limit of two seconds."""
    folder, said = tmp_path_factory.mktemp("limited"), []
    (folder / "test_made.py").write_text(TESTS)
    found = time_limits.run(["test_made.py"], folder, seconds=2, grace=1, cwd=folder,
                            say=said.append)
    return {t["name"].removeprefix("test_made.py::test_"): t for t in found}, said, folder


def test_each_test_has_its_outcome_whatever_the_others_do(limited):
    found, said, _ = limited
    assert {name: t["outcome"] for name, t in found.items()} == OUTCOMES
    assert found["fails"]["message"].startswith("AssertionError: one and one")
    assert found["fails"]["message"].endswith("(test_made.py:7)")
    assert found["sleeps"]["message"] == "took longer than 2 s, then in test_made.py:9"
    assert found["hangs"]["message"] == "took longer than 3 s and reacts to no interrupt"
    assert found["skipped"]["message"] == "not here" and not found["passes"]["message"]
    assert "signal 9" in found["crashes"]["message"]
    # those that neither passed nor were skipped, once each, as they ended
    bad = [name for name, outcome in OUTCOMES.items() if outcome not in time_limits.FINE]
    assert [line.split("test_made.py::test_")[1].split(":")[0] for line in said] == bad
    assert said[0].startswith("FAILED test_made.py::test_fails: AssertionError: one and one")


def test_a_test_that_leaves_a_process_unfit_is_its_last(limited):
    """After a time-out, an error of CUDA or a crash another process goes on."""
    sessions = (limited[2] / "tests.log").read_text().count("test session starts")
    assert sessions == 1 + sum(OUTCOMES[name] in ("timed out", "crashed")
                               for name in OUTCOMES) + 1


def test_what_does_not_fit_into_the_time_of_all_tests_is_named(tmp_path, monkeypatch):
    """The clock jumps once the first test has started."""
    (tmp_path / "test_made.py").write_text("import time\ndef test_a(): time.sleep(600)\n"
                                           "def test_b(): pass\n")
    events = tmp_path / "tests.jsonl"

    def now():
        return 1000.0 if events.exists() and "start" in events.read_text() else 0.0

    monkeypatch.setattr(time_limits, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))
    found = time_limits.run(["test_made.py"], tmp_path, within=999, cwd=tmp_path)
    assert [(t["name"][-1], t["outcome"]) for t in found] == [("a", "not run"), ("b", "not run")]


def test_tests_that_cannot_be_collected_are_a_failure(tmp_path):
    (tmp_path / "test_made.py").write_text("import no_such_module\n")
    found, = time_limits.run(["test_made.py"], tmp_path, cwd=tmp_path)
    assert found["outcome"] == "failed" and "error" in found["message"]


# its steps


def words(step):
    """The papermill commands of a step: notebook -> parameters, as papermill reads them."""
    found = {}
    for command in step.commands:
        if "papermill" in command:
            given = [yaml.safe_load(text) for flag, text in itertools.pairwise(command)
                     if flag == "-y"]
            found[command[3]] = {k: v for part in given for k, v in part.items()}
    return found


@pytest.mark.parametrize("rehearse", [False, True])
@pytest.mark.parametrize("root", [None, TOP])
def test_every_step_gives_its_notebook_parameters_that_it_knows(rehearse, root, tmp_path):
    timed = set()
    for step in gpu_report.steps(tmp_path, root, rehearse).values():
        for notebook, given in words(step).items():
            name = (TOP / notebook).stem
            assert (TOP / notebook).exists() and given.keys() <= plans.defaults(name).keys()
            parameters.checked(**given)
            assert given["results"].startswith(str(tmp_path))
            if name == "step_time":
                timed |= {side for side, _ in given["sides"]}
                assert given["sides"][0] == ["vanilla", {}]
            if name == "train":
                assert given["dataset"] == ("cifar10" if root else "shapes")
        for command in step.commands:
            if "ci/gpu_measure.py" in command:
                assert command[2] in gpu_measure.WHAT
        assert 0 < step.needs < step.limit
    assert rehearse or timed == set(catalog.suited(methods, models, "preactresnet18"))


def test_the_paper_s_steps_are_measured_at_full_width():
    given, = words(gpu_report.steps(TOP)["step_times"]).values()
    assert (given["width"], given["batch"], given["precision"]) == (64, 100, "bf16")
    assert given["channels_last"] and given["compile_network"]
    assert ["sage", {"fraction": 1.0}] in given["sides"]


def test_the_expected_times_of_all_steps_fit_into_the_limit():
    steps = gpu_report.steps(TOP)
    assert sum(step.needs for step in steps.values()) + 120 < gpu_report.LIMIT
    assert [*gpu_report.NAMES] == ["tests", *steps]


def fake(monkeypatch, tmp_path, arguments, took=0.0, **statuses):
    """main() with commands that run nothing and take `took` seconds each: (status, states).

    statuses: of a step's commands, where it is not 0; None is a time-out.
    """
    now = [0.0]
    monkeypatch.setattr(gpu_report, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def call(command, log, limit):
        name = log.stem
        log.write_text(f"{name} says\nwhy\n")
        if name == "machine":
            (log.parent / "machine.json").write_text(json.dumps(gpu_summary.made_up()["machine"]))
            return 0
        now[0] += took
        return statuses.get(name, 0)

    def tests(*args, **kwargs):
        now[0] += took
        return [{"name": "a::b", "outcome": "passed", "seconds": 1.0, "message": ""}]

    monkeypatch.setattr(gpu_report, "call", call)
    monkeypatch.setattr(gpu_report.time_limits, "run", tests)
    monkeypatch.setattr(sys, "argv", ["ci/gpu", "--out", str(tmp_path / "out"), *arguments])
    status = gpu_report.main()
    states = json.loads((tmp_path / "out/steps.json").read_text())
    return status, {name: (state["state"], state["why"]) for name, state in states.items()}


def test_all_steps_run_and_a_failing_one_stops_no_other(monkeypatch, tmp_path, capsys):
    status, states = fake(monkeypatch, tmp_path, [], search=1, packed=None)
    assert list(states) == ["machine", *gpu_report.NAMES] and status == 1
    assert states["search"] == ("failed", "why; why")  # of its two commands
    assert states["packed"][0] == "timed out"
    others = {state for name, (state, _) in states.items() if name not in ("search", "packed")}
    assert others == {"ok"} and "    search says" in capsys.readouterr().out
    assert fake(monkeypatch, tmp_path, [])[0] == 0


def test_only_the_steps_that_are_asked_for(monkeypatch, tmp_path, capsys):
    _, states = fake(monkeypatch, tmp_path, ["--only", "search,packed"])
    assert list(states) == ["machine", "search", "packed"]
    with pytest.raises(SystemExit):
        fake(monkeypatch, tmp_path, ["--only", "search,nothing"])
    assert "unknown step nothing; known: tests, step_times" in capsys.readouterr().err


def test_steps_that_do_not_fit_into_the_rest_are_skipped_and_named(monkeypatch, tmp_path,
                                                                      capsys):
    _, states = fake(monkeypatch, tmp_path, ["--limit", "100"], took=30.0)
    assert "profile needs 25 s, and 0 are left" in capsys.readouterr().out
    assert states["step_times"] == ("ok", "")  # tests and step times have taken 60 s
    assert states["search"] == ("ok", "")      # two commands, 60 s
    assert states["profile"] == ("skipped", "no time left")
    assert states["training"][0] == "skipped"
    text = " ".join((tmp_path / "out/summary.txt").read_text().split())
    assert "profile, packed, training, methods, fp32 skipped (no time left)" in text
    _, states = fake(monkeypatch, tmp_path, ["--limit", "3"], took=30.0)
    assert states["tests"] == ("skipped", "no time left")


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    """Also a process in a session of its own, as a notebook's kernel is."""
    told = tmp_path / "pid"
    program = ("import pathlib, subprocess, sys, time\n"
               "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\n"
               "                         start_new_session=True)\n"
               f"pathlib.Path({str(told)!r}).write_text(str(child.pid))\n"
               "time.sleep(600)\n")

    class Waits(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout == 5:  # the limit, here as soon as the child has been started
                while not (told.exists() and told.read_text()):
                    time.sleep(0.02)
                raise subprocess.TimeoutExpired("it", timeout)
            return super().wait(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_report.subprocess, "Popen", Waits)
        assert gpu_report.call([sys.executable, "-c", program], tmp_path / "log", 5) is None
    child = int(told.read_text())

    def ended():
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True

    wait(ended)


# its summary


def test_the_summary_is_one_screen_with_every_part():
    found = gpu_summary.made_up()
    text = gpu_summary.as_text(found)
    for part in ("A GPU, capability 9.0", "commit 000000000000", "1 passed, 1 failed",
                 "FAILED test_b: AssertionError: 1 is not 2", "fp32 skipped (no time left)",
                 "sage, fraction 1", "mixup 1.07", "100 %, in a graph 0.0800", "a_kernel 35 %",
                 "one run 30000 images/s", "0.020 s between (2.5 %)", "31.00 % of the test images",
                 "met           step, vanilla: at most 1.6 ms; measured 1.500 ms",
                 "MISSED        step, SAGE, all shifts: at most 3.3 ms; measured 3.400 ms"):
        assert part in text, part
    assert len(text.splitlines()) <= gpu_summary.LINES
    assert max(map(len, text.splitlines())) <= gpu_summary.WIDTH


def test_a_long_summary_is_cut_and_keeps_the_targets():
    found = gpu_summary.made_up()
    found["tests"] = [{"name": f"a::test_{k}[{'x' * 200}]", "outcome": "failed", "seconds": 1.0,
                       "message": "m" * 300} for k in range(40)]
    side = found["step_times"]["rows"][1]
    found["step_times"]["rows"] += [side | {"name": f"side {k}"} for k in range(40)]
    lines = gpu_summary.as_text(found).splitlines()
    assert len(lines) == gpu_summary.LINES and max(map(len, lines)) <= gpu_summary.WIDTH
    assert "  … 34 more in tests.json" in lines
    assert len([line for line in lines if ": at most " in line]) == len(gpu_summary.TARGETS)


def test_what_was_not_measured_is_said(tmp_path):
    found = gpu_summary.collected(tmp_path)
    assert {row["met"] for row in found["targets"]} == {None}
    text = gpu_summary.as_text(found)
    assert text.count("not measured") == len(gpu_summary.TARGETS) and "tests       not run" in text


def test_times_of_a_cpu_meet_no_target():
    found = gpu_summary.made_up()
    assert [row["met"] for row in gpu_summary.targets(found)] == [True, True, False, True, True]
    found["machine"]["gpu"] = None
    assert {row["met"] for row in gpu_summary.targets(found)} == {None}


# its path without a GPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_checks_what_it_can_and_says_so(tmp_path):
    """One kernel and one step; the other tests of these two files run by themselves."""
    ended = subprocess.run(
        [TOP / "ci/gpu", "--out", tmp_path / "out", "-k", "(cut and 2 and 90) or sage_merged"],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHON": sys.executable})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no NVIDIA GPU" in ended.stdout and "profile: skipped (no GPU)" in ended.stdout
    tests = json.loads((tmp_path / "out/tests.json").read_text())
    assert [t["outcome"] for t in tests] == ["passed", "passed"], tests
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert written["machine"]["gpu"] is None and written["steps"]["tests"]["state"] == "ok"
    assert (tmp_path / "out/summary_example.txt").read_text().startswith("MADE-UP NUMBERS")
    assert (tmp_path / "out/summary.txt").read_text().rstrip() in ended.stdout


def test_a_measurement_needs_a_gpu_or_is_a_rehearsal(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_measure.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_measure.py", "packed", str(tmp_path)])
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU, or --small"):
        gpu_measure.main()


def test_the_search_is_measured_for_all_and_for_one_percent_of_the_shifts(tmp_path):
    gpu_measure.search(gpu_measure.SMALL, gpu_measure.Save(tmp_path, "search"))
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["shifts"] == {"1 %": 39, "100 %": 63 * 63} and found["pairs"] == 8
    assert set(found["ms"]) == {"1 %, called", "100 %, called"}


@pytest.mark.parametrize("file", sorted(Path(gpu_measure.__file__).parent.glob("*.py")),
                         ids=lambda file: file.name)
def test_an_import_leaves_the_environment_as_it_is(file):
    """The tests import these files; kernels and workers that they start inherit the environment."""
    tree = ast.parse(file.read_text())
    inside = {node for top in tree.body if isinstance(top, (ast.FunctionDef, ast.ClassDef, ast.If))
              for node in ast.walk(top)}
    changed = [ast.unparse(node) for node in ast.walk(tree) if node not in inside
               and isinstance(node, (ast.Call, ast.Assign)) and "environ" in ast.unparse(node)]
    assert not changed
