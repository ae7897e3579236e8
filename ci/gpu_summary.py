"""What ci/gpu measured, on one screen: `collected` reads a folder, `as_text` writes the summary."""

import json
import textwrap
from pathlib import Path

LINES, WIDTH = 45, 100
FAILURES = 6  # that are named; tests.json has all
TARGETS = {  # on one H100 or H200, PreActResNet18, bf16, channels_last, compiled, batch of 100
    "step, vanilla": (1.6, "ms"), "step, SAGE, 1 % of the shifts": (3.2, "ms"),
    "step, SAGE, all shifts": (3.3, "ms"),
    "search of all shifts, 100 pairs of 32 x 32": (0.1, "ms"),
    "between epochs, of the training time": (3.0, "%")}


def collected(folder):
    """Everything a folder of ci/gpu holds, as one dict; {} or [] where there is nothing."""
    folder = Path(folder)
    found = {name: read(folder / f"{name}.json", {})
             for name in ("machine", "steps", "profile", "search", "packed", "epochs")}
    found["tests"] = read(folder / "tests.json", [])
    for name in ("step_times", "methods", "fp32", "search_time"):
        found[name] = newest(folder.glob(f"{name}/timings/*.json"))
    found["training"] = newest(path for path in folder.glob("training/*/*/*.json"))
    return found | {"targets": targets(found)}


def read(file, otherwise):
    return json.loads(file.read_text()) if file.exists() else otherwise


def newest(files):
    """The record that finished last, or {}."""
    return max((json.loads(file.read_text()) for file in files),
               key=lambda record: record["finished"], default={})


def sides(record):
    """side -> (milliseconds, over vanilla, images a second) of a record of step times."""
    return {row["name"]: (1000 * row["seconds"]["median"], 2 * row["ratio"]["median"],
                          row["images_per_second"])
            for row in record.get("rows", ()) if "images_per_second" in row}


def targets(found):
    """Rows what, target, unit, measured and met, for each of TARGETS; None where not measured.

    Nothing that was timed without a GPU counts.
    """
    steps = sides(found["step_times"])
    alone = found["search"].get("ms", {})
    alone = alone.get("100 %, in a graph") or alone.get("100 %, called") or {}
    measured = [steps.get(side, (None,))[0] for side in ("vanilla", "sage", "sage, fraction 1")]
    measured += [alone.get("median"), found["epochs"].get("vanilla", {}).get("percent")]
    if not found["machine"].get("gpu"):
        measured = [None] * len(TARGETS)
    return [{"what": what, "target": limit, "unit": unit, "measured": value,
             "met": None if value is None else value <= limit}
            for (what, (limit, unit)), value in zip(TARGETS.items(), measured, strict=True)]


def as_text(found):
    """The summary: at most LINES lines of at most WIDTH characters."""
    lines = [*machine_lines(found["machine"]), *state_lines(found["steps"]),
             *test_lines(found["tests"]), *step_lines(found), *search_lines(found),
             *kernel_lines(found["profile"]), *packed_lines(found["packed"]),
             *training_lines(found), *target_lines(found["targets"])]
    if len(lines) > LINES:  # the targets, which come last, stay
        lines = [*lines[:LINES - len(TARGETS) - 2], "…", *lines[-len(TARGETS) - 1:]]
    return "\n".join(line[:WIDTH].rstrip() for line in lines) + "\n"


def wrapped(head, text):
    """Text after a head of twelve characters, on as many lines as it needs."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"{head:<12}", subsequent_indent=" " * 12)


def machine_lines(machine):
    if not machine:
        return wrapped("machine", "unknown: see machine.log")
    versions, commit = machine["versions"], machine["commit"]
    capability = ".".join(map(str, machine["capability"] or ())) or "none"
    gpu = machine["gpu"] or f"no NVIDIA GPU; {machine['cpu']}, {machine['cores']} cores"
    what = (f"{gpu}, capability {capability}, driver {machine['driver']}, CUDA {versions['cuda']}, "
            f"torch {versions['torch']}, Python {versions['python']}")
    where = "not a checkout"
    if commit:
        where = commit["id"][:12] + (", with changed files" if commit["dirty"] else "")
    return wrapped("machine", f"{what}; commit {where}")


def state_lines(steps):
    alike = {}  # what came of a step -> the steps
    for name, state in steps.items():
        why = state["why"] or f"{state['seconds']:.0f} s"
        alike.setdefault(f"{state['state']} ({why})", []).append(name)
    words = [f"{', '.join(names)} {what}" for what, names in alike.items()]
    return wrapped("steps", "; ".join(words)) if words else []


def test_lines(tests):
    if not tests:
        return wrapped("tests", "not run")
    count = {}
    for test in tests:
        count[test["outcome"]] = count.get(test["outcome"], 0) + 1
    lines = wrapped("tests", ", ".join(f"{n} {outcome}" for outcome, n in count.items()))
    bad = [t for t in tests if t["outcome"] in ("failed", "timed out", "crashed")]
    for test in bad[:FAILURES]:
        first = test["message"].splitlines()[0] if test["message"] else ""
        name = test["name"].rsplit("/", 1)[-1].split("::", 1)[-1]
        lines.append(f"  {test['outcome'].upper()} {name}: {first}")
    return lines + [f"  … {len(bad) - FAILURES} more in tests.json"] * (len(bad) > FAILURES)


def step_lines(found):
    lines = []
    if found["step_times"]:
        asked = found["step_times"]["parameters"]
        words = [asked["precision"], "channels_last" * asked["channels_last"],
                 "compiled" * asked["compile_network"], f"width {asked['width']}",
                 f"batch of {asked['batch']}"]
        lines.append(f"{'step: ' + ', '.join(filter(None, words)):<60}{'ms':>8}{'over vanilla':>14}"
                     f"{'images/s':>10}")
        lines += [f"  {name:<58}{ms:8.3f}{over:14.3f}{rate:10.0f}"
                  for name, (ms, over, rate) in sides(found["step_times"]).items()]
    for name in ("methods", "fp32"):
        if found[name]:
            row = sides(found[name])
            words = [f"{side} {over:.2f}" for side, (_, over, _) in row.items()
                     if side != "vanilla"]
            head = f"vanilla {row['vanilla'][0]:.3f} ms; over vanilla: "
            lines += wrapped(name, head + ", ".join(words))
    return lines


def search_lines(found):
    lines, alone, record = [], found["search"], found["search_time"]
    if alone:
        words = [f"{name} {ms['median']:.4f}" for name, ms in alone["ms"].items()]
        lines += wrapped("search, ms", f"{alone['pairs']} pairs of {alone['size']} x "
                                       f"{alone['size']}: {', '.join(words)}")
    rows = [row for row in record.get("rows", ()) if row["name"] == "library"]
    if rows:
        words = [f"{100 * row['fraction']:g} % {1000 * row['seconds']['median']:.3f}"
                 for row in rows]
        lines += wrapped("and mix, ms", f"{record['parameters']['pairs']} pairs: "
                                        f"{', '.join(words)}")
    return lines


def kernel_lines(profile):
    lines = []
    for name, seen in profile.items():
        top = ", ".join(f"{row['name'][:24]} {row['percent']:.0f} %" for row in seen["top"][:3])
        lines += wrapped("kernels", f"{name}: {seen['launches']:.0f}, {seen['kernel_ms']:.3f} ms; "
                                     f"clock {seen['wall_ms']:.3f} ms, idle {seen['idle_ms']:.3f} "
                                     f"ms; {top}")[:2]
    return lines


def packed_lines(packed):
    lines = []
    for name, rates in packed.items():
        words = [f"{k}: {rate['ratio']['median']:.3f}" for k, rate in rates.items() if k != "1"]
        one = rates["1"]["images_per_second"]["median"]
        lines += wrapped("packed", f"{name}: one run {one:.0f} images/s; so many at once give "
                                   f"{', '.join(words)} times that")
    return lines


def training_lines(found):
    lines = []
    if found["epochs"]:
        words = [f"{name} {e['training_seconds']:.3f} s an epoch and {e['between_seconds']:.3f} s "
                 f"between ({e['percent']:.1f} %)" for name, e in found["epochs"].items()]
        lines += wrapped("epochs", "; ".join(words))
    record = found["training"]
    if record:
        lines += wrapped("training", f"{record['method']['name']} on {record['dataset']['name']}, "
                                     f"{record['recipe']['epochs']} epochs: "
                                     f"{record['final']['accuracy']:.2f} % of the test images, "
                                     f"{record['seconds']['epoch']:.2f} s an epoch")
    return lines


def target_lines(rows):
    lines = ["targets, for one H100 or H200"]
    for row in rows:
        word = {True: "met", False: "MISSED", None: "not measured"}[row["met"]]
        got = "" if row["measured"] is None else f"{row['measured']:.3f} {row['unit']}"
        lines.append(f"  {word:<13} {row['what']}: at most {row['target']:g} {row['unit']}"
                     + (f"; measured {got}" if got else ""))
    return lines


def made_up():
    """Everything that `collected` can find, with numbers that nobody measured."""
    def step(name, ms):
        spread = {"median": ms / 1000, "low": ms / 1000, "high": ms / 1000}
        over = {k: v / 0.003 for k, v in spread.items()}
        return {"name": name, "seconds": spread, "ratio": over, "images_per_second": 1e5 / ms}

    def record(rows, **more):
        asked = dict(precision="bf16", channels_last=True, compile_network=True, width=64,
                     batch=100, pairs=100)
        return {"rows": rows, "parameters": asked | more, "finished": "2027-01-01"}

    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    kernel = {"name": "a_kernel", "launches": 3.0, "milliseconds": 0.5, "percent": 35.0}
    seen = {"launches": 210.0, "kernel_ms": 1.4, "busy_ms": 1.4, "wall_ms": 1.5, "idle_ms": 0.1,
            "top": [kernel] * 20}
    steps = [step("two vanilla steps", 3.0), step("vanilla", 1.5), step("sage", 3.0),
             step("sage, fraction 1", 3.4)]
    del steps[0]["images_per_second"]
    found = {
        "machine": {"gpu": "A GPU", "capability": [9, 0], "driver": "1", "cpu": "a CPU", "cores": 4,
                    "versions": {"cuda": "13", "torch": "2.11", "python": "3.12"},
                    "commit": {"id": "0" * 40, "dirty": False}},
        "steps": {"tests": {"state": "failed", "seconds": 90.0, "why": "1 of 2"},
                  "step_times": {"state": "ok", "seconds": 50.0, "why": ""},
                  "fp32": {"state": "skipped", "seconds": 0.0, "why": "no time left"}},
        "tests": [{"name": "ci/tests/test_gpu.py::test_a", "outcome": "passed", "seconds": 1.0,
                   "message": ""},
                  {"name": "ci/tests/test_gpu.py::test_b", "outcome": "failed", "seconds": 1.0,
                   "message": "AssertionError: 1 is not 2"}],
        "step_times": record(steps), "methods": record([steps[1], step("mixup", 1.6)]),
        "fp32": record([steps[1], step("sage", 3.1)], precision="fp32"),
        "search_time": record([step("library", 0.2) | {"fraction": 1.0}]),
        "search": {"pairs": 100, "size": 32, "ms": {"100 %, in a graph": {"median": 0.08}}},
        "profile": {"vanilla": seen, "sage": seen},
        "packed": {"sage": {k: {"images_per_second": {**one, "median": 3e4}, "ratio": one}
                            for k in "1234"}},
        "epochs": {"vanilla": {"training_seconds": 0.8, "between_seconds": 0.02, "percent": 2.5}},
        "training": {"method": {"name": "sage"}, "dataset": {"name": "shapes"},
                     "recipe": {"epochs": 2}, "final": {"accuracy": 31.0},
                     "seconds": {"epoch": 0.1}}}
    return found | {"targets": targets(found)}
