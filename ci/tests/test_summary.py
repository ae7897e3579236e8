"""Summaries of records: the spread over seeds against numpy, and which records belong together."""
import numpy as np
import pytest

from sagelib.bench import plans, records, summary


def record(method="sage", seed=0, kind="paper", settings="paper", **options):
    return {"method": {"name": method, "settings": settings}, "seed": seed, "kind": kind,
            "parameters": {"options": options}}


def test_spread_is_mean_standard_deviation_and_count():
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
    asked = [{**record(settings=has), "parameters": {"settings": wanted}} for has, wanted in (
        # what was asked counts; some methods have nothing to tune
        ("default", "paper"), ("paper", "default"))]
    assert summary.as_tuned([*others, *kept, *asked]) == [*kept, asked[0]]


def test_recipes_are_kept_apart_the_papers_first_then_the_one_with_most_runs():
    runs = [record(kind="shortened: epochs 3"),
            *(record(kind="shortened: epochs 30", seed=s) for s in range(3)), record(kind="paper")]
    found = summary.by_kind(runs)
    assert list(found) == ["paper", "shortened: epochs 30", "shortened: epochs 3"]
    assert [r["seed"] for r in found["shortened: epochs 30"]] == [0, 1, 2]
    assert sum(map(len, found.values())) == 5
    tie = [{**record(kind=f"shortened: epochs {n}"), "recipe": {"epochs": n}} for n in (3, 30)]
    assert list(summary.by_kind(tie)) == ["shortened: epochs 30", "shortened: epochs 3"]


def test_few_shot_runs_of_one_setup_differ_in_method_and_seed_alone():
    def run(method, epochs, seed=0):
        return {**record(method, seed), "dataset": {"name": "cifar_fs"},
                "model": {"name": "resnet12", "width": 16}, "recipe": {"epochs": epochs}}
    long, short = [run("sage", 100)], [run("sage", 12), run("vanilla", 12), run("sage", 12, 1)]
    assert summary.by_setup([*long, *short]) == [short, long]


def test_a_few_shot_setup_has_one_record_per_method_and_seed_the_first_to_finish():
    def run(finished, shots=5, seed=0):
        return {**record("sage", seed),
                **{key: {"epochs": 12} for key in ("dataset", "model", "recipe")},
                "chosen": {"exam": {"shots": shots, "seed": seed}}, "finished": finished}

    first, again = run("2026"), run("2027")
    other_seed, other_exam = run("2028", seed=1), run("2025", shots=1)
    found = summary.by_setup([again, first, other_seed, other_exam])
    assert found == [[first, other_seed], [other_exam]]


def test_methods_hold_their_seeds_in_order():
    found = summary.by_method([record("mixup", 2), record("sage", 1), record("mixup", 0)])
    assert {m: [r["seed"] for r in rs] for m, rs in found.items()} == {"mixup": [0, 2], "sage": [1]}


def test_the_interval_is_students():
    from scipy import stats
    values = [95.1, 96.4, 95.9, 96.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = summary.spread(values)
    assert found.mean - found.interval == pytest.approx(low)
    assert found.mean + found.interval == pytest.approx(high)
    assert summary.spread([1.0]).interval is None


def test_tables_as_csv_and_latex():
    import csv
    header = ["method", "accuracy, %"]
    rows = [["manifold_mixup", summary.spread([70.0, 71.0])], ["sage", "not run"]]
    read = list(csv.reader(summary.as_csv(header, rows).splitlines()))
    assert read == [["method", "accuracy, %", "accuracy, % std", "accuracy, % n"],
                    ["manifold_mixup", "70.5",
                     str(np.std([70, 71], ddof=1)), "2"], ["sage", "not run", "", ""]]
    latex = summary.as_latex(header, rows).splitlines()
    assert latex[2] == r"method & accuracy, \% \\"
    assert latex[4] == r"manifold\_mixup & $70.50 \pm 0.71$ \\"
    assert latex[0] == r"\begin{tabular}{ll}" and latex[-1] == r"\end{tabular}"
    assert summary.as_latex(["a"], [["b\\c"]]).splitlines()[4] == r"b\textbackslash{}c \\"


def test_numbers_keep_a_format():
    assert f"{summary.spread([1.0, 2.0]):+.1f}" == "+1.5 ± 0.71 (2)"


def full(method, seed, accuracy, kind="paper", dataset="cifar10", **options):
    return {**record(method, seed, kind, **options), "dataset": {"name": dataset, "test": 10_000},
            "model": {"name": "wrn16_8"}, "final": {"accuracy": accuracy}}


ROWS = {"vanilla": ("vanilla", {}), "SAGE": ("sage", {}), "all shifts": ("sage", {"fraction": 1.0}),
        "Mixup": ("mixup", {})}


def test_the_name_of_a_recipe_is_its_sizes_or_the_first_word_of_its_kind():
    every = records.every(records.RESULTS)
    named = {r["run"]: plans.recipe_name(r) for r in every}
    assert named["3e101a29"] == "underfit" and named["ff24d579"] == "medium"
    other = next(r for r in every if r["run"] == "b7bb9514")  # 3 epochs
    assert plans.size_of(other) is None and named["b7bb9514"] == "shortened"
    assert plans.recipe_text(other) == other["kind"]
    assert plans.recipe_text({**other, "kind": "paper"}) == "the paper's"


def test_a_row_is_found_by_method_and_options_and_all_rows_are_of_one_recipe():
    kept = [full("vanilla", 0, 70.0), full("sage", 1, 72.0), full("sage", 0, 71.0),
            full("sage", 0, 73.0, fraction=1.0)]
    others = [full("sage", 0, 1.0, dataset="cifar100"), full("sage", 0, 1.0, u=0.1),
              full("mixup", 0, 1.0, kind="short"),
              *(full("vanilla", s, 1.0, kind="short") for s in range(9))]
    tables = summary.runs_by_row([*others, *kept], "cifar10", "wrn16_8", ROWS)
    assert list(tables) == ["paper", "short"]
    assert list(tables["paper"]) == ["vanilla", "SAGE", "all shifts"]
    assert [r["final"]["accuracy"] for r in tables["paper"]["SAGE"]] == [71.0, 72.0]
    assert tables["paper"]["vanilla"] == kept[:1] and tables["paper"]["all shifts"] == kept[3:]
    assert {label: len(rs) for label, rs in tables["short"].items()} == {"vanilla": 9, "Mixup": 1}
    assert summary.runs_by_row(kept, "cifar10", "resnet18", ROWS) == {}


def test_of_two_records_of_one_seed_the_first_counts():
    twice = [{**full("sage", 0, a), "finished": day}
             for a, day in ((72.0, "2026-02"), (71.0, "2026-01"))]
    assert summary.runs_by_row(twice, "cifar10", "wrn16_8", ROWS) == {"paper": {"SAGE": twice[1:]}}


def test_measured_is_beside_reported():
    runs = [full("vanilla", 0, 70.0), full("vanilla", 1, 72.0), full("sage", 0, 71.5),
            full("sage", 1, 72.5), full("sage", 2, 75.0)]
    found, = summary.runs_by_row(runs, "cifar10", "wrn16_8", ROWS).values()
    rows = summary.compare({"vanilla": 95.0, "SAGE": 97.0, "Mixup": 96.0}, found)
    assert [[str(c) for c in row] for row in rows] == [
        ["vanilla", "95.0", "71.00 ± 1.41 (2)", "-24.00", ""],
        # seeds 0 and 1: +1.5 and +0.5
        ["SAGE", "97.0", "73.00 ± 1.80 (3)", "-24.00", "+1.00 ± 0.71 (2)"],
        ["Mixup", "96.0", "not run", "", ""]]
    short = summary.runs_by_row([{**r, "kind": "short"} for r in runs], "cifar10", "wrn16_8",
                                ROWS)["short"]
    # no difference to the paper
    assert [row[3:] for row in summary.compare({"vanilla": 95.0}, short)] == [["", ""]]


def test_what_a_family_decides_in_words():
    """The sentences below a table for no record, one and two seeds, three, and both kinds of
    recipe."""
    def run(method, accuracies, kind="paper"):
        runs = [full(method, seed, a, kind) for seed, a in enumerate(accuracies)]
        return [{**r, "dataset": {"name": "cifar10", "test": 10_000}} for r in runs]

    def words(ours):
        family = summary.against(ours, "vanilla", "methods", "CIFAR-10")
        return family, summary.in_words(family, ours, "vanilla")

    assert words({})[1] == ""
    vanilla = run("vanilla", (80.0, 80.4, 80.1))
    alone = words({"vanilla": vanilla})[1]
    assert alone == ("There is no difference to vanilla to decide, since no other row has been "
                     "run. The recipe is the paper's.")
    assert "since it has not been run." in words({"sage": vanilla})[1]
    mixed = {"sage": run("sage", (90.0, 90.5, 90.2)), "mixup": run("mixup", (80.0, 81.0))}
    family, text = words({"vanilla": vanilla, **mixed})
    assert family.name == "the 2 methods against vanilla, CIFAR-10"
    assert ("Higher: sage; not decided: mixup. The difference for mixup rests on fewer than 3 "
            "seeds") in text
    assert summary.evidence(family, "sage")[2] == "higher"
    assert summary.evidence(family, "cutmix") == ["", "", ""]
    seeds, images, word = summary.evidence(family, "mixup")
    assert seeds == pytest.approx(np.std([0.0, 0.6], ddof=1) / 2**0.5) and word == "not decided"
    assert images == family.differences["mixup"].test_error > 0.5
    short = "shortened: epochs 3 (paper 300)"
    family, text = words(
        {"vanilla": run("vanilla", (80.0,), short), "sage": run("sage", (90.0,), short)})
    assert family.name == "the method sage against vanilla, CIFAR-10"
    assert "The difference rests on fewer" in text
    assert "neither support nor contradict" in text and summary.evidence(family, "sage")[0] == ""


FAMILY = {"sage": [full("sage", 0, 71.0)], "vanilla": [full("vanilla", 0, 70.0)],
          "u": [full("sage", 1, 70.0, u=1.0)]}


@pytest.mark.parametrize("here, reason", [
    ("sage", "no other row has been run"),
    ("sage vanilla", "no other row has been run except vanilla, which is not in this family"),
    ("sage u", "no other row has a seed in common with it"),
    ("sage u vanilla", "no other row of this family has a seed in common with it"),
    ("u vanilla", "it has not been run"), ("u", "it has not been run"), ("vanilla", ""), ("", "")])
def test_why_a_family_has_no_difference(here, reason):
    """With and without a row of the table that is not in the family."""
    ours = {label: FAMILY[label] for label in here.split()}
    rows = {label: rs for label, rs in ours.items() if label != "vanilla"}
    family = summary.against(rows, "sage", "ablations", "Table 3")
    text = summary.in_words(family, ours, "sage", outside=("vanilla",))
    assert not text or not family.differences
    said = text.removeprefix("There is no difference to sage to decide, since ").split(". ")[0]
    assert said == reason


def test_an_accuracy_without_a_record_is_not_run():
    assert summary.accuracy([]) == summary.accuracy(None) == "not run"
    found = [{"final": {"accuracy": value}} for value in (70.0, 72.0)]
    assert str(summary.accuracy(found)) == "71.00 ± 1.41 (2)"
