"""Checkpoints that a thread writes while the next epoch trains: whole, in order, never lost."""
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent import futures

import pytest
import torch

from sagelib import files, methods
from sagelib.bench import paths
from sagelib.catalog import load
from sagelib.data.batches import Batches
from sagelib.train import Recipe, Run, checkpoint, fit, fit_together

HANGS = 120  # seconds until a test that waits for ever fails


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def started(shapes, tiny, tmp_path):
    """A function that makes a run of some epochs, with a checkpoint in the test's folder."""
    def make(epochs, name="c", method="sage", **more):
        return Run(tiny(), Batches(shapes[0], 16, generator=seeded()),
                   load(methods, method).seed(0), Recipe(epochs=epochs), tmp_path / f"{name}.pt",
                   **more)
    return make


class Slow:
    """A disk on which no writing ends before `ready` is set; `found` are the contents, in order."""

    def __init__(self, monkeypatch):
        self.ready, self.begun, self.found = threading.Event(), threading.Event(), []
        self.own = files.replace
        monkeypatch.setattr(files, "replace", self.replace)

    def replace(self, target, content):
        self.begun.set()
        assert self.ready.wait(HANGS)
        self.own(target, content)
        self.found.append(torch.load(target, weights_only=True))


@pytest.fixture
def slow(monkeypatch):
    return Slow(monkeypatch)


def copied(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_goes_on_while_the_state_of_the_epoch_is_written(started, slow):
    """The first writing ends after the second epoch, and holds the first epoch's weights."""
    run, weights = started(2), []

    def on_epoch(curves):
        weights.append(copied(run.net))
        assert slow.begun.wait(HANGS)
        if len(weights) == 2:
            slow.ready.set()

    fit_together([run], on_epoch=on_epoch)
    assert [len(state["curve"]) for state in slow.found] == [1, 2]
    assert all(equal(state["net"], then)
               for state, then in zip(slow.found, weights, strict=True))
    speed = [state["optimizer"][0]["momentum_buffer"] for state in slow.found]
    assert not torch.equal(*speed)
    assert torch.equal(speed[1], run.optimizer.state_dict()["state"][0]["momentum_buffer"])


def test_what_is_not_yet_begun_is_replaced_by_a_newer_epoch(started, slow):
    one, two = started(4, "one"), started(3, "two")

    def on_epoch(curves):
        assert slow.begun.wait(HANGS)
        if len(curves[0]) == 4:
            slow.ready.set()

    fit_together([one, two], on_epoch=on_epoch)
    assert [(state["settings"]["recipe"]["epochs"], len(state["curve"]))
            for state in slow.found] == [(4, 1), (3, 3), (4, 4)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError, SystemExit])
def test_whatever_ends_the_training_leaves_the_last_epoch_on_the_disk(error, started, slow,
                                                                      tmp_path):
    def on_epoch(curves):
        if len(curves[0]) == 2:
            threading.Timer(0.3, slow.ready.set).start()
            raise error

    with pytest.raises(error):
        fit_together([started(5)], on_epoch=on_epoch)
    assert len(torch.load(tmp_path / "c.pt", weights_only=True)["curve"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
    resumed, whole = started(5), started(5, "whole")
    fit_together([resumed])
    fit_together([whole])
    assert equal(resumed.net.state_dict(), whole.net.state_dict())


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_training_with_its_error(started, monkeypatch):
    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        fit_together([started(1)])  # at the end
    writer = checkpoint.Writer()
    with pytest.raises(OSError, match="No space left on device") as caught, writer:
        writer.save(started(1))
        futures.wait([write for _, write, _ in writer._writes], HANGS)
        writer.save(started(1, "other"))
        raise AssertionError("the second save did not say so")
    assert not hasattr(caught.value, "__notes__")


def test_a_disk_that_fills_up_while_a_file_is_written_is_an_oserror(tmp_path):
    """PyTorch closes its file with a RuntimeError then; what was there before stays."""
    code = """if True:
        import resource, signal, sys, torch
        from sagelib import files
        files.save("kept.pt", {"a": torch.zeros(3)})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            files.save("kept.pt", {"a": torch.zeros(1_000_000)})
        except OSError as error:
            print(type(error).__name__, len(torch.load("kept.pt")["a"]))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(paths.TOP)})
    assert done.stdout == "OSError 3\n", done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["kept.pt"]


def test_a_full_disk_is_a_note_of_the_error_that_came_before(started, monkeypatch):
    monkeypatch.setattr(files, "replace", full)

    def on_epoch(curves):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fit_together([started(3)], on_epoch=on_epoch)
    assert caught.value.__notes__ == [
        "A checkpoint was not written: [Errno 28] No space left on device"]


def test_the_copy_shares_nothing_with_the_run(started):
    """Everything that trains on is changed in place, and the copy stays; best, too."""
    run = started(2, method="sage_merged", select="train_loss")
    fit_together([run])
    state = checkpoint._copied(run)
    before = json.dumps(plain(state))
    for part in (run.net.state_dict(), run.best, *run.optimizer.state_dict()["state"].values()):
        for value in part.values():
            value.add_(1)
    for waiting in run.method.state()["waiting"]:
        waiting.add_(1)
    run.curve[0]["train_loss"] = 0.0
    run.curve.append({})
    assert json.dumps(plain(state)) == before != json.dumps(plain(checkpoint._copied(run)))


def plain(value):
    """Nested tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_a_checkpoint_is_the_file_it_always_was(started, tmp_path):
    """Keys, types and the network's own attributes, against the state that is not copied."""
    run = started(1, select="train_loss")
    fit_together([run])
    found = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.save(checkpoint._state(run), tmp_path / "direct.pt")
    direct = torch.load(tmp_path / "direct.pt", weights_only=True)
    assert list(found) == list(direct) and set(found) == {*checkpoint.KEYS, "python",
                                                              "rewind_to"}
    for state in (found, direct):
        del state["python"]  # the type checks of the tests draw from it
    assert plain(found) == plain(direct)
    assert type(found["net"]) is type(direct["net"])
    assert found["net"]._metadata == direct["net"]._metadata
    checkpoint.restore(started(1, "direct", select="train_loss"))  # without the thread


def test_without_a_path_nothing_is_written(shapes, tiny, monkeypatch):
    monkeypatch.setattr(files, "replace", full)
    curve = fit(tiny(), Batches(shapes[0], 16, generator=seeded()), load(methods, "vanilla"),
                Recipe(epochs=2))
    assert len(curve) == 2


KILLED = """
import json, os, signal, sys, time, torch
from sagelib import datasets, files, methods, models
from sagelib.data.batches import Batches
from sagelib.catalog import load
from sagelib.train import Recipe, fit
torch.set_num_threads(1)
own, written, killed_at = files.replace, [], int(sys.argv[2])

def replace(target, content):
    def half(file):
        content(file)
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    own(target, half if len(written) == killed_at else content)
    written.append(target)

files.replace = replace
train, _ = load(datasets, "shapes", train=100, test=10)
torch.manual_seed(0)
net = load(models, "preactresnet18", classes=10, width=4)
batches = Batches(train, 50, generator=torch.Generator().manual_seed(0))

def wait_for_the_thread(curve):
    while killed_at >= 0 and len(written) < len(curve):
        time.sleep(0.001)

curve = fit(net, batches, load(methods, "sage").seed(0), Recipe(epochs=4), None, sys.argv[1],
            wait_for_the_thread)
print(json.dumps([e["train_loss"] for e in curve]))
"""


def test_killed_in_the_middle_of_a_writing_it_goes_on_from_the_epoch_before(tmp_path):
    def start(name, killed_at):
        return subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name), str(killed_at)],
                              stdout=subprocess.PIPE, text=True, timeout=HANGS, check=False)

    whole = start("whole", -1)
    assert start("killed", 2).returncode == -signal.SIGKILL
    assert len(torch.load(tmp_path / "killed", weights_only=True)["curve"]) == 2
    assert start("killed", -1).stdout == whole.stdout and whole.returncode == 0
    left = [p for p in os.listdir(tmp_path) if p.endswith(".part")]
    assert len(left) == 1  # what the killed process had written so far
