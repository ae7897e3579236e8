"""The clock: whose turn it is, what a ratio is, memory and launches counted right, and records of timings."""
import json
import sys

import pytest
import torch

from sagelib import records, timing


def test_sides_take_turns_and_ratios_are_taken_within_a_round(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing, "_now", lambda: now[0])

    def side(name, seconds):
        def call():
            order.append(name)
            now[0] += seconds * (2 if len(order) > 6 else 1)  # the machine slows down for both
        return call

    found = timing.interleaved({"a": side("a", 3.0), "b": side("b", 1.0)}, rounds=3, warm=1, least=0)
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells the peak of a process")
def test_peak_memory_is_what_a_call_needs_besides_what_was_there():
    kept = torch.ones(10_000_000)
    assert 75e6 < timing.peak_memory(lambda: (torch.ones(10_000_000) + kept).sum()) < 95e6
    assert timing.peak_memory(lambda: kept[0].item()) < 5e6


def test_launches_count_operations_but_no_views():
    z = torch.rand(3, 4, requires_grad=True)
    assert timing.launches(lambda: torch.add(z, 1).t()[1:, :2].sum()) == 2
    assert timing.launches(lambda: z.detach()[0]) == 0


def test_operations_are_those_of_the_layers_forwards_and_backwards():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 5, 7))
    x = torch.randn(2, 3, 8, 7, requires_grad=True)
    forwards = 2 * 2 * (4 * 6 * 5 * 3 * 9 + 4 * 6 * 5 * 7)  # images, both operations, convolution and linear layer
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
    with pytest.raises(ValueError, match="no valid record: at rows/0: 'seconds' is a required property"):
        records.timings(tmp_path, "search_time")


def test_the_committed_timings_keep_what_the_book_promises():
    """Search and mix against the per-image loop, memory, and SAGE's step over two vanilla steps, as measured."""
    search = records.timings(records.RESULTS, "search_time")[-1]
    step = [r for r in records.timings(records.RESULTS, "step_time") if r["rows"][-1]["name"] == "part: crop and flip"
            and any(row["name"] == "sage, reuse 0" for row in r["rows"])][-1]
    loop = {r["fraction"]: r["ratio"]["median"] for r in search["rows"] if r["name"] == "canvas" and r["size"] == 32}
    assert loop[0.01] >= 25 and loop[0.1] >= 80 and loop[1.0] >= 500 and search["parameters"]["pairs"] == 100
    assert all(r["peak_bytes"] < 15e6 for r in search["rows"] if r["name"] == "library")
    over = {r["name"]: r["ratio"]["median"] for r in step["rows"] if "ratio" in r}
    assert over["sage"] <= 1.00 and over["sage, fraction 1"] <= 1.03 and over["sage, reuse 0"] <= 0.85
    crop = next(r for r in step["rows"] if r["name"] == "part: crop and flip")
    assert crop["seconds"]["median"] / step["parameters"]["batch"] < 15e-6


def test_the_newest_timing_of_all_methods_at_full_width_is_found():
    def record(model, width, *names, ratio=1.0):
        row = {"median": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
        return {"parameters": {"model": model, "width": width},
                "rows": [*({"name": n, "ratio": row} for n in names), {"name": "part: mix"}]}
    both = ("vanilla", "sage")
    made = [record("preactresnet18", 64, *both), record("preactresnet18", 64, *both, ratio=0.5),
            record("preactresnet18", 8, *both), record("preactresnet18", 64, "sage"), record("wrn16_8", 8, *both)]
    assert timing.of_methods(made, "preactresnet18", both) is made[1]
    assert timing.of_methods(made, "wrn16_8", both) is made[4] and timing.of_methods(made, "resnet18", both) is None
    assert timing.over_vanilla(made[1]) == {name: {"median": 1.0, "low": 0.9, "high": 1.1} for name in both}
    assert timing.over_vanilla(None) == {}
