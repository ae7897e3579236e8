"""The clock: whose turn it is, what a ratio is, memory and launches counted right, and records of
timings."""
import json
import sys

import pytest
import torch

from sagelib import catalog, datasets, methods
from sagelib.bench import records, timing
from sagelib.data.batches import Batches
from sagelib.train import Recipe, Run


def test_sides_take_turns_and_ratios_are_taken_within_a_round(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing, "_now", lambda: now[0])

    def side(name, seconds):
        def call():
            order.append(name)
            now[0] += seconds * (2 if len(order) > 6 else 1)  # the machine slows down for both
        return call

    found = timing.interleaved({"a": side("a", 3.0), "b": side("b", 1.0)}, rounds=3, warm=1,
                               least=0)
    assert order[:2] == ["a", "b"] and order[-6:] == ["a", "b"] * 3
    assert timing.ratio(found["a"], found["b"]) == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert timing.spread([1, 5, 2]) == {"median": 2, "low": 1, "high": 5}
    with pytest.raises(ValueError, match="at least one round"):
        timing.interleaved({}, rounds=0)


def test_a_short_side_is_called_often_and_counts_its_mean(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing, "_now", lambda: now[0])

    def side():
        calls.append(1)
        now[0] += 0.25

    assert timing.interleaved({"a": side}, rounds=2, warm=1, least=1.0) == {"a": [0.25, 0.25]}
    assert len(calls) == 1 + 1 + 2 * 4


@pytest.mark.skipif(not sys.platform.startswith("linux"),
                    reason="Linux alone tells the peak of a process")
def test_peak_memory_is_what_a_call_needs_besides_what_was_there():
    kept = torch.ones(10_000_000)
    assert 75e6 < timing.peak_memory(lambda: (torch.ones(10_000_000) + kept).sum()) < 95e6
    assert timing.peak_memory(lambda: kept[0].item()) < 5e6


def test_launches_count_operations_but_no_views():
    z = torch.rand(3, 4, requires_grad=True)
    assert timing.launches(lambda: torch.add(z, 1).t()[1:, :2].sum()) == 2
    assert timing.launches(lambda: z.detach()[0]) == 0


def test_a_profile_sums_kernels_and_counts_overlapping_ones_once():
    """Two calls: a from 0 to 3, b from 2 to 4 on another stream, a gap, a from 5 to 6; in ms."""
    events = [("a", 5e-3, 6e-3), ("b", 2e-3, 4e-3), ("a", 0.0, 3e-3)]
    found = timing.profile_of(events, calls=2, wall=4e-3)
    assert [k.name for k in found.kernels] == ["a", "b"]
    assert (found.launches, found.kernels[0].launches, found.kernels[1].launches) == (1.5, 1, 0.5)
    assert found.kernel_seconds == pytest.approx(3e-3)
    assert found.busy_seconds == pytest.approx(2.5e-3)
    assert found.idle_seconds == pytest.approx(1.5e-3)
    first, = found.rows(top=1)
    assert first["name"] == "a" and first["milliseconds"] == pytest.approx(2)
    assert first["percent"] == pytest.approx(100 * 2 / 3)
    assert timing.profile_of(events, calls=2, wall=1e-3).idle_seconds == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_profile_needs_a_gpu():
    with pytest.raises(RuntimeError, match="needs an NVIDIA GPU"):
        timing.kernel_profile(lambda: None)


def test_packed_runs_take_turns_on_full_batches_and_count_all_images(monkeypatch, tiny):
    now, order = [0.0], []
    monkeypatch.setattr(timing, "_now", lambda: now[0])
    data = catalog.load(datasets, "shapes", train=25, test=10)[0]

    def run_of(seed):
        batches = Batches(data, 10, generator=torch.Generator().manual_seed(seed))
        run = Run(tiny(), batches, catalog.load(methods, "vanilla").seed(seed), Recipe(epochs=1))
        advance = run.advance

        def noted(k):
            order.append((seed, k))
            now[0] += 0.5
            advance(k)

        run.advance = noted
        return run

    runs = [run_of(0), run_of(1)]
    assert timing.packed(runs, steps=3, warm=1) == 2 * 10 * 3 / 3.0
    assert order == [(0, 0), (1, 0), (0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]
    assert runs[0].losses[:2].isfinite().all()
    with pytest.raises(ValueError, match="at least one run"):
        timing.packed([])


def test_operations_are_those_of_the_layers_forwards_and_backwards():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(),
                              torch.nn.Linear(4 * 6 * 5, 7))
    x = torch.randn(2, 3, 8, 7, requires_grad=True)
    # images, both operations, convolution and linear layer
    forwards = 2 * 2 * (4 * 6 * 5 * 3 * 9 + 4 * 6 * 5 * 7)
    assert timing.operations(lambda: net(x)) == (forwards, 0)
    assert timing.operations(lambda: torch.autograd.grad(net(x).sum(), x)) == (forwards, forwards)
    assert timing.operations(lambda: net(x).sum().backward()) == (forwards, 2 * forwards)


def test_a_timing_is_a_record_that_no_run_is_mistaken_for(tmp_path):
    row = {"name": "a", "seconds": timing.spread([1.0, 2.0]), "ratio": timing.spread([1.0])}
    record = records.make_timing(what="search_time", rows=[row], parameters={"pairs": 3})
    file = records.write(record, tmp_path)
    assert file.parent.name == "timings" and records.timings(tmp_path, "search_time") == [record]
    assert records.every(tmp_path) == [] and records.timings(tmp_path, "step_time") == []
    with pytest.raises(FileExistsError, match="never replaced"):
        records.write(record, tmp_path)
    file.write_text(json.dumps(record | {"rows": [{"name": "a"}]}))
    with pytest.raises(ValueError, match="no valid record: at rows/0: 'seconds' is a required "
                                         "property"):
        records.timings(tmp_path, "search_time")


def made(*names, ratio=1.0, gpu=None, **parameters):
    """A record of step times as far as the functions below read it; `names` are its sides."""
    row = {"median": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
    return {"parameters": parameters, "hardware": {"gpu": gpu, "cpu": "a processor", "threads": 2},
            "rows": [*({"name": n, "ratio": row} for n in names), {"name": "part: mix"}]}


def test_the_newest_timing_of_all_methods_at_full_width_is_found():
    both, net = ("vanilla", "sage"), {"model": "preactresnet18", "width": 64}
    first, second = made(*both, **net), made(*both, ratio=0.5, **net)
    wrn = made(*both, model="wrn16_8", width=8)
    narrow, unknown = made(*both, **net | {"width": 8}), made(*both, model="preactresnet18")
    found = [first, second, narrow, unknown, made("sage", **net), made(*both), wrn]
    assert timing.with_methods(found, "preactresnet18", both) == [first, second]
    assert timing.of_methods(found, "preactresnet18", both) is second
    assert timing.of_methods(found, "wrn16_8", both) is wrn
    assert timing.of_methods(found, "resnet18", both) is None
    assert timing.of_methods([], "wrn16_8", both) is None
    over = {"median": 1.0, "low": 0.9, "high": 1.1}
    assert timing.over_vanilla(second) == {name: over for name in both}
    assert timing.over_vanilla(None) == {}


@pytest.mark.parametrize("model, width, built, full", [
    ("preactresnet18", 64, 64, True), ("preactresnet18", 16, 16, False),
    ("preactresnet18", 0, 64, True), ("preactresnet18", None, None, False), ("wrn16_8", 8, 8, True),
    # the experiment did not pass this width on
    ("resnet18", 64, None, True), ("resnext29_4_24", 64, 24, True)])
def test_a_record_tells_which_network_was_really_timed(model, width, built, full):
    asked = {"model": model} | ({} if width is None else {"width": width})
    assert timing.timed_network(made("vanilla", **asked)) == (model, built)
    assert timing.at_full_width(made("vanilla", **asked)) == full
    newer = made("vanilla", **asked, network={"name": model, "width": 48})  # says what was built
    assert timing.timed_network(newer) == (model, 48)
    assert timing.at_full_width(newer) == (model == "resnet18")
    assert not timing.at_full_width(made("vanilla", width=width))  # names no network


def test_the_widths_taken_for_older_records_are_the_papers():
    assert timing.WIDTH == {"preactresnet18": 64, "wrn16_8": 8, "resnext29_4_24": 24}


def test_setups_are_told_apart_and_the_newest_record_of_each_counts():
    old, new = (made("vanilla", threads=1, batch=20) for _ in range(2))
    asked = dict(precision="bf16", channels_last=True, compile_network=True, batch=100)
    gpu, bare = made("vanilla", gpu="NVIDIA T4", threads=1, **asked), made("vanilla")
    found = timing.by_setup([old, gpu, new, bare])
    assert list(found) == ["NVIDIA T4, bf16, channels_last, compiled, batch of 100",
                           "a processor, 1 thread, batch of 20", "a processor, 2 threads"]
    for record, expected in zip(found.values(), (gpu, new, bare), strict=True):
        assert record is expected


def test_steps_timed_outside_a_record_are_read(tmp_path):
    file = tmp_path / "steps.csv"
    file.write_text('gpu,step,milliseconds\nA,vanilla,2.5\nA,"sage, fraction 1",5\n')
    assert timing.from_csv(file) == [{"gpu": "A", "step": "vanilla", "milliseconds": 2.5},
                                     {"gpu": "A", "step": "sage, fraction 1", "milliseconds": 5.0}]
