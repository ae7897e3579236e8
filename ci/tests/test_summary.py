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


def test_the_interval_is_students():
    from scipy import stats
    values = [95.1, 96.4, 95.9, 96.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = summary.spread(values)
    assert found.mean - found.interval == pytest.approx(low) and found.mean + found.interval == pytest.approx(high)
    assert summary.spread([1.0]).interval is None


def test_differences_are_taken_seed_by_seed():
    ours = [{**record("sage", s), "x": x} for s, x in ((0, 70.0), (1, 75.0), (2, 80.0))]
    base = [{**record("vanilla", s), "x": x} for s, x in ((2, 79.0), (1, 71.0), (5, 10.0))]
    found = summary.paired(ours, base, lambda r: r["x"])
    assert (found.mean, found.n) == (2.5, 2) and found.std == pytest.approx(np.std([4, 1], ddof=1))
    assert summary.paired(ours[:1], base, lambda r: r["x"]) is None
    with pytest.raises(ValueError, match="two records of sage with seed 0"):
        summary.paired([*ours, ours[0]], base, lambda r: r["x"])


def test_tables_as_csv_and_latex():
    import csv
    header = ["method", "accuracy, %"]
    rows = [["manifold_mixup", summary.spread([70.0, 71.0])], ["sage", "not run"]]
    read = list(csv.reader(summary.as_csv(header, rows).splitlines()))
    assert read == [["method", "accuracy, %", "accuracy, % std", "accuracy, % n"],
                    ["manifold_mixup", "70.5", str(np.std([70, 71], ddof=1)), "2"], ["sage", "not run", "", ""]]
    latex = summary.as_latex(header, rows).splitlines()
    assert latex[2] == r"method & accuracy, \% \\" and latex[4] == r"manifold\_mixup & $70.50 \pm 0.71$ \\"
    assert latex[0] == r"\begin{tabular}{ll}" and latex[-1] == r"\end{tabular}"
    assert summary.as_latex(["a"], [["b\\c"]]).splitlines()[4] == r"b\textbackslash{}c \\"
