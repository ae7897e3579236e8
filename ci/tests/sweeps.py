"""What the tests of sweeps share: a small plan, the command line, and what runs in a folder."""
import collections
import os
import subprocess
import sys
import time
from pathlib import Path

from sagelib.bench import records
from sagelib.bench.paths import TOP

BIN = Path(sys.executable).parent
# seconds after which a process is taken for one that hangs; no test depends on its speed
HANGS = 1500
PLAN = """
title: Four small runs
notebook: train
cells:
  - {dataset: shapes, model: preactresnet18, method: [vanilla, mixup]}
"""
SIZES = """
small:
  seeds: [0, 1]
  parameters: {epochs: %d, width: 4, train_images: 200}
"""


def command(plan, tmp_path, *more):
    where = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    return [sys.executable, "-m", "sagelib.bench.sweep",
            str(plan), "--size", "small", *where, "--jobs", "2", *more]


def swept(plan, tmp_path, *more):
    return subprocess.run(command(plan, tmp_path, *more), capture_output=True, text=True, cwd=TOP,
                          timeout=HANGS)


def attempts(tmp_path):
    return [p for p in (tmp_path / "out/attempts").glob("*/*") if p.is_dir()]


def alive(tmp_path):
    """Processes that work in this folder, drivers, attempts and their kernels: number -> folder and
    command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = f"{os.readlink(process / 'cwd')} {(process / 'cmdline').read_text()}".replace(
                "\0", " ")
        except OSError:
            continue
        if str(tmp_path) in where and int(process.name) != os.getpid():
            found[int(process.name)] = where
    return found


def wait(condition, seconds=HANGS):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.2)
    assert condition()


def four_records(tmp_path):
    found = records.every(tmp_path / "results")
    keys = collections.Counter((r["method"]["name"], r["seed"]) for r in found)
    assert keys == {(m, s): 1 for m in ("vanilla", "mixup") for s in (0, 1)}
    return found
