"""One measurement on a GPU, into a folder: `python ci/gpu_measure.py WHAT FOLDER [--small]`.

WHAT is `machine`, `profile`, `search`, `packed` or `epochs`; the result is FOLDER/WHAT.json, which
is written again after each part. ci/gpu runs these, each in a process with a time limit. `--small`
is a rehearsal of the same code on the CPU. Images are random bytes: no time depends on them.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch

from sagelib import catalog, files, methods, models, show
from sagelib.bench import provenance, timing
from sagelib.data.batches import Batches
from sagelib.data.dataset import Dataset
from sagelib.methods import sage
from sagelib.rearrange import best_offset, offsets
from sagelib.saliency import smooth
from sagelib.train import Recipe, Run, fit_together

SIDES = ("vanilla", "sage")
TOP_KERNELS = 20


@dataclass(frozen=True)
class Size:
    """How large a measurement is; the defaults are the paper's network and batch on a GPU."""

    device: str = "cuda"
    width: int = 64
    batch: int = 100
    steps: int = 100
    train: int = 50_000
    test: int = 10_000
    rounds: int = 3
    recipe: tuple = (("precision", "bf16"), ("channels_last", True), ("compile", True))


SMALL = Size("cpu", 4, 8, 2, 40, 20, 1, (("precision", "bf16"), ("channels_last", True)))


def random_images(size, n, seed):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=g)
    return Dataset(images, labels, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3).to(size.device)


def training_run(size, data, name, seed=0, checkpoint=None, epochs=1):
    """A run of the paper's network. The learning rate is small: random labels are no lesson."""
    torch.manual_seed(seed)
    net = catalog.load(models, "preactresnet18", classes=10, width=size.width).to(size.device)
    batches = Batches(data, size.batch, generator=torch.Generator(size.device).manual_seed(seed))
    method = catalog.load(methods, name).seed(seed, size.device)
    recipe = Recipe(epochs=epochs, lr=1e-6, **dict(size.recipe))
    return Run(net, batches, method, recipe, checkpoint)


def step_of(run, warm=5):
    """A function that makes one step of a run, which is recorded as a CUDA graph by now."""
    run.begin(0)
    for _ in range(warm):
        run.advance(0)
    return lambda: run.advance(0)


def machine(size, save):
    """The GPU, its driver, the software and the commit."""
    driver = None
    if shutil.which("nvidia-smi"):
        said = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True)
        driver = said.stdout.strip().splitlines()[0] if said.stdout.strip() else None
    there = torch.cuda.is_available()
    save({**provenance.hardware("cuda" if there else "cpu"), "driver": driver,
          "capability": list(torch.cuda.get_device_capability()) if there else None,
          "versions": provenance.versions(), "commit": provenance.commit()})


def profile(size, save):
    """The most expensive kernels of a step of vanilla and of SAGE; also as CSV and as text."""
    data, found = random_images(size, 20 * size.batch, 0), {}
    for name in SIDES:
        step = step_of(training_run(size, data, name))
        if size.device == "cuda":
            seen = timing.kernel_profile(step)
        else:  # a rehearsal: there are no kernels
            step()
            seen = timing.profile_of([("no kernel", 0.0, 1.0)], 1, 1.0)
        found[name] = {"launches": seen.launches, "kernel_ms": 1000 * seen.kernel_seconds,
                       "busy_ms": 1000 * seen.busy_seconds, "wall_ms": 1000 * seen.wall_seconds,
                       "idle_ms": 1000 * seen.idle_seconds, "top": seen.rows(TOP_KERNELS)}
        save(found, {f"kernels_{name}.csv": as_csv(found[name]["top"]),
                     f"kernels_{name}.txt": as_text(name, found[name])})


def as_csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_text(name, seen):
    head = (f"{name}, a step: {seen['launches']:.0f} kernels, copies and fills, "
            f"{seen['kernel_ms']:.3f} ms in all; {seen['wall_ms']:.3f} ms by the clock, of which "
            f"{seen['idle_ms']:.3f} ms without a kernel\n\n")
    lines = [f"{'ms':>8} {'%':>6} {'launches':>9}  kernel"]
    lines += [f"{row['milliseconds']:8.4f} {row['percent']:6.2f} {row['launches']:9.1f}  "
              f"{row['name'][:150]}" for row in seen["top"]]
    return head + "\n".join(lines) + "\n"


def search(size, save):
    """Milliseconds of the search alone, for a batch of pairs: as Python calls it, and in a graph.

    In training the search is part of the step's CUDA graph, which leaves out Python's time.
    """
    g = torch.Generator().manual_seed(0)
    n = size.batch
    s = smooth(torch.rand(n, 1, 32, 32, generator=g) ** 12, 1.5).to(size.device)
    x, y = torch.zeros(n, 3, 32, 32, device=size.device), torch.ones(n, 10, device=size.device) / 10
    a, b = sage.weighted(x, y, s, torch.randperm(n, generator=g).to(size.device), 0.3)
    every = offsets(32, 32, size.device)
    some = every[torch.randperm(len(every), generator=g).to(size.device)[:len(every) // 100]]
    sides = {}
    for percent, tau in (("1", some), ("100", every)):
        sides[f"{percent} %, called"] = lambda tau=tau: best_offset(a, b, tau)
        if size.device == "cuda":
            sides[f"{percent} %, in a graph"] = recorded(sides[f"{percent} %, called"]).replay
    timed = timing.interleaved(sides, 3 * size.rounds)
    spreads = {name: timing.spread(seconds) for name, seconds in timed.items()}
    save({"pairs": n, "size": 32, "shifts": {"1 %": len(some), "100 %": len(every)},
          "ms": {name: {k: 1000 * v for k, v in found.items()} for name, found in spreads.items()}})


def recorded(call):
    """A call as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def packed(size, save):
    """Images a second of 1 to 4 runs on one GPU, a step of each in turn, and the ratio to one."""
    data, found = random_images(size, 20 * size.batch, 0), {}
    for name in SIDES:
        runs = [training_run(size, data, name, seed) for seed in range(4)]
        rates = {k: [] for k in (1, 2, 3, 4)}
        for _ in range(size.rounds):
            for k, rate in rates.items():
                rate.append(timing.packed(runs[:k], size.steps))
        found[name] = {str(k): {"images_per_second": timing.spread(rate),
                                "ratio": timing.ratio(rate, rates[1])}
                       for k, rate in rates.items()}
        save(found)


def epochs(size, save):
    """Seconds of training, and seconds between epochs for all the rest, on a set of CIFAR's size.

    The rest is the evaluation, the checkpoint, and the curve that is drawn again. The first epoch,
    which compiles, does not count.
    """
    train, test = random_images(size, size.train, 0), random_images(size, size.test, 1)
    found = {}
    for name in SIDES:
        with_checkpoint = save.folder / f"{name}.pt"
        with_checkpoint.unlink(missing_ok=True)
        run = training_run(size, train, name, 0, with_checkpoint, epochs=4)
        stamps = []

        def ended(curves, stamps=stamps, name=name):
            figure = show.curves({name: curves}, draw=False)
            figure.savefig(io.BytesIO(), format="png")
            show.plt.close(figure)
            stamps.append(time.perf_counter())

        curve, = fit_together([run], Batches(test, 2000), ended)
        with_checkpoint.unlink()
        training = sum(entry["seconds"] for entry in curve[1:])
        between = stamps[-1] - stamps[0] - training
        counted = len(curve) - 1
        found[name] = {"training_seconds": training / counted, "between_seconds": between / counted,
                       "percent": 100 * between / training}
        save(found)


class Save:
    """Writes FOLDER/WHAT.json, and other texts beside it."""

    def __init__(self, folder, what):
        self.folder, self.what = Path(folder), what

    def __call__(self, found, texts=()):
        files.replace(self.folder / f"{self.what}.json", json.dumps(found, indent=1) + "\n")
        for name, text in dict(texts).items():
            files.replace(self.folder / name, text)


WHAT = {f.__name__: f for f in (machine, profile, search, packed, epochs)}


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=WHAT)
    options.add_argument("folder", type=Path)
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    if not asked.small and asked.what != "machine" and not torch.cuda.is_available():
        sys.exit(f"{asked.what} needs an NVIDIA GPU, or --small for a rehearsal on the CPU")
    WHAT[asked.what](SMALL if asked.small else Size(), Save(asked.folder, asked.what))


if __name__ == "__main__":
    show.plt.switch_backend("agg")  # a process of its own, without a screen
    main()
