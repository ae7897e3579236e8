"""The leaderboard: places and groups by slow references, boards of made records, its export."""

import csv
import io
import json

import numpy as np
import pytest
from made_records import make

from sagelib.bench import leaderboard, records, summary


@pytest.fixture(scope="module", params=["paper", "against"])
def made(request, tmp_path_factory):
    folder = make(request.param, tmp_path_factory.mktemp("made") / "results")
    return records.every(folder), records.every(folder, "few_shot"), records.timings(
        folder, "step_time")


def test_a_board_for_every_row_of_the_papers_tables(made):
    found = leaderboard.boards(*made)
    assert [(b.dataset, b.model, len(b.entries)) for b in found] == [
        ("cifar10", "preactresnet18", 8), ("cifar100", "preactresnet18", 8),
        ("cifar100", "resnext29_4_24", 8), ("cifar100", "wrn16_8", 8),
        *[("mini_imagenet", "resnet12", 7)] * 2]  # in both set-ups
    assert len({b.name for b in found}) == 6 and {b.size for b in found} == {"paper", None}
    for board in found:
        means = [e.value.mean for e in board.entries]
        assert means == sorted(means, reverse=True) and board.can_decide
        for entry in board.entries:
            assert {r["method"]["name"] for r in entry.records} == {entry.method}
            assert not any(r["parameters"].get("options") for r in entry.records)
            evaluated = board.model == "preactresnet18"
            assert bool(entry.perturbed) == evaluated and entry.train is None


def test_places_and_differences_by_counting(made):
    for board in leaderboard.boards(*made):
        better = [pair if sign > 0 else pair[::-1]
                  for pair, sign in board.ranking.family.signs.items() if sign]
        first, n = board.entries[0], len(board.entries)
        for entry in board.entries:
            expected = (1 + sum(worse == entry.method for _, worse in better),
                        n - sum(winner == entry.method for winner, _ in better))
            assert entry.places == (expected if better else None)
            assert entry.rank == (expected[0] if better else None)
            for other in board.entries:
                if other is not entry:
                    apart = {(entry.method, other.method), (other.method, entry.method)} & {*better}
                    assert bool(apart) != bool({*entry.letters} & {*other.letters})
        assert first.gap is None
        for entry in board.entries[1:]:
            gaps = [board.quantity.value(a) - board.quantity.value(b)
                    for a, b in zip(entry.records, first.records, strict=True)]
            assert entry.gap.mean == pytest.approx(np.mean(gaps)) and entry.gap.n == 3
            error = leaderboard.seed_error(entry.gap)
            assert error == pytest.approx(np.std(gaps, ddof=1) / 3**0.5)


def test_cost_is_of_the_same_network_and_width(made):
    trained, few_shot, timings = made
    costs = {b.model: b.entries[0].cost for b in leaderboard.boards(*made)}
    assert costs["resnext29_4_24"] and costs["preactresnet18"]
    assert all(e.cost is None for b in leaderboard.boards(trained, few_shot) for e in b.entries)
    narrow = [{**t, "parameters": {**t["parameters"], "width": 8}} for t in timings
              if t["parameters"]["model"] == "preactresnet18"]
    assert not any(b.timed for b in leaderboard.boards(trained, [], narrow))


def test_a_method_with_too_few_seeds_has_no_rank_and_takes_none(made):
    trained, *_ = made
    few = [r for r in trained if r["method"]["name"] != "mixup" or r["seed"] == 0]
    for board in leaderboard.boards(few):
        entry = next(e for e in board.entries if e.method == "mixup")
        assert entry.places is None and entry.letters == "" and entry.value.n == 1
        assert any(e.places for e in board.entries)
    alone = [r for r in trained if r["seed"] == 0]
    for board in leaderboard.boards(alone):
        assert not board.can_decide and not board.groups
        assert all(e.places is None and not e.letters for e in board.entries)


def test_what_is_no_board():
    assert leaderboard.boards([]) == []
    assert leaderboard.as_csv(leaderboard.method_rows([])) == ""
    assert json.loads(leaderboard.as_json([])) == {"methods": [], "runs": []}


def test_training_accuracy_and_single_methods(made):
    trained, *_ = made
    sage = [r for r in trained if r["method"]["name"] == "sage"]
    assert leaderboard.boards(sage) == []
    fitted = [{**r, "final": {**r["final"], "train_accuracy": 99.0 + r["seed"] / 10}}
              for r in trained]
    for board in leaderboard.boards(fitted):
        assert all(e.train.mean == pytest.approx(99.1) for e in board.entries)


def test_the_export_has_every_number_of_the_boards(made):
    found = leaderboard.boards(*made)
    rows = json.loads(leaderboard.as_json(found))
    entries = [(b, e) for b in found for e in b.entries]
    assert len(rows["methods"]) == len(entries)
    for row, (board, entry) in zip(rows["methods"], entries, strict=True):
        assert (row["board"], row["method"], row["rank"], row["groups"]) == (
            board.name, entry.method, entry.rank, entry.letters)
        runs = [r for r in rows["runs"] if (r["board"], r["method"]) == (board.name, entry.method)]
        again = summary.spread(r["accuracy"] for r in runs)
        assert (row["mean"], row["std"], row["seeds"]) == (again.mean, again.std, again.n)
        assert [r["record"] for r in runs] == [
            str(records.path(r, "book/results")) for r in entry.records]
    for name, of in (("methods", leaderboard.method_rows), ("runs", leaderboard.run_rows)):
        read = list(csv.DictReader(io.StringIO(leaderboard.as_csv(of(found)))))
        assert read == [{k: "" if v is None else str(v) for k, v in row.items()}
                        for row in rows[name]]
