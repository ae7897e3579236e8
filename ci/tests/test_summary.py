"""Summaries of records: the spread over seeds against numpy, and which records belong together."""
import numpy as np
import pytest

from sagelib import summary


def record(method="sage", seed=0, kind="paper", settings="paper", **options):
    return {"method": {"name": method, "settings": settings}, "seed": seed, "kind": kind,
            "parameters": {"options": options}}


def test_spread_is_mean_sample_deviation_and_count():
    values = [95.1, 96.4, 95.9]
    found = summary.spread(v for v in values)
    mean, std = np.mean(values), np.std(values, ddof=1)
    assert (found.mean, found.std, found.n) == (pytest.approx(mean), pytest.approx(std), 3)
    assert str(found) == f"{mean:.2f} ± {std:.2f} (3)"
    assert str(summary.spread([80.0])) == "80.00 (1)" and summary.spread([80.0]).std is None
    with pytest.raises(ValueError, match="nothing to average"):
        summary.spread([])


def test_only_methods_as_the_paper_tunes_them_are_compared():
    kept = [record(), record("vanilla", 3), {**record(), "parameters": {}}]
    others = [record(fraction=1.0), record(settings="default")]
    assert summary.as_tuned([*others, *kept]) == kept


def test_recipes_are_kept_apart_the_papers_first_then_the_one_with_most_runs():
    runs = [record(kind="shortened: epochs 3"), *(record(kind="shortened: epochs 30", seed=s) for s in range(3)),
            record(kind="paper")]
    found = summary.by_kind(runs)
    assert list(found) == ["paper", "shortened: epochs 30", "shortened: epochs 3"]
    assert [r["seed"] for r in found["shortened: epochs 30"]] == [0, 1, 2] and sum(map(len, found.values())) == 5


def test_few_shot_runs_of_one_setup_differ_in_method_and_seed_alone():
    def run(method, epochs, seed=0):
        return {**record(method, seed), "dataset": {"name": "cifar_fs"}, "model": {"name": "resnet12", "width": 16},
                "recipe": {"epochs": epochs}}
    long, short = [run("sage", 100)], [run("sage", 12), run("vanilla", 12), run("sage", 12, 1)]
    assert summary.by_setup([*long, *short]) == [short, long]


def test_methods_hold_their_seeds_in_order():
    found = summary.by_method([record("mixup", 2), record("sage", 1), record("mixup", 0)])
    assert {m: [r["seed"] for r in rs] for m, rs in found.items()} == {"mixup": [0, 2], "sage": [1]}
