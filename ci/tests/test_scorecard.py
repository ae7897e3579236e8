"""The scorecard: every cell of the paper's tables, verdicts by the obvious formulas, claims asked
of numbers."""

import numpy as np
import pytest
from scipy import stats

from sagelib.bench import parameters, plans, quantities, records, scorecard

REPORTED = {k: records.reported(k) for k in range(1, 8)}
CELLS = scorecard.printed()


def record(method, seed, accuracy, kind="paper", dataset="cifar10", **options):
    return {"method": {"name": method, "settings": "paper"}, "seed": seed, "kind": kind,
            "final": {"accuracy": accuracy}, "parameters": {"options": options},
            "dataset": {"name": dataset, "test": 10_000}, "model": {"name": "preactresnet18"}}


QUANTITIES = {"accuracy": quantities.ACCURACY}


def book(every, clock=None):
    """A Book of made records."""
    found = scorecard.runs(scorecard.with_means(CELLS), every, QUANTITIES)
    return scorecard.Book(CELLS, found, QUANTITIES, clock or {})


def test_every_number_of_the_tables_is_a_cell_once():
    assert len(CELLS) == len({(c.table, c.row, c.label) for c in CELLS}) == 131
    for number, rows in REPORTED.items():
        printed = sorted(v for row in rows if row.get("perturbation") != "rank"
                         for k, v in row.items() if isinstance(v, float) and k != "setting")
        assert sorted(c.reported for c in CELLS if c.table == number) == printed


def test_a_cell_knows_the_run_that_measures_it():
    def of(table, row, label):
        return next((c.method, c.options) for c in CELLS
                    if (c.table, c.row, c.label) == (table, row, label))
    assert of(1, "cifar100, wrn16_8", "puzzlemix") == ("puzzlemix", {})
    assert of(3, "cifar10, components", "without rearrangement") == ("sage", {"rearranged": False})
    assert of(3, "cifar100, search", "100 %") == ("sage", {"fraction": 1.0})
    assert of(7, "cifar10, eta", "eta 1.0") == ("sage", {"reuse": 0.0})
    assert of(3, "cifar10, search", "1 %") == of(7, "cifar10, eta", "eta 0.7") == ("sage", {})
    # the tuned ones
    assert of(7, "cifar10, u", "u 0.6") == of(7, "cifar100, u", "u 0.5") == ("sage", {})
    assert of(7, "cifar100, u", "u 0.6") == ("sage", {"u": 0.6})


@pytest.mark.parametrize("number", [3, 7])
def test_the_plan_of_a_table_has_its_rows_and_no_other(number):
    planned = plans.table_rows(plans.PLANS / f"table_{number}.yml")
    here = [c for c in CELLS if c.table == number]
    assert planned.keys() == {(c.label, c.dataset) for c in here}
    for size in ("paper", "short"):
        ran = [c.parameters for c in plans.read(plans.PLANS / f"table_{number}.yml", size)[1]]
        assert {(p["dataset"], p["model"], p["method"], str(p.get("options", {})))
                for p in ran} == {(c.dataset, c.model, c.method, str(c.options)) for c in here}


def test_records_find_their_cells_of_one_recipe_a_row():
    every = [record("sage", 0, 90.0), record("sage", 1, 91.0), record("sage", 0, 1.0, fraction=0.1),
             record("vanilla", 0, 80.0, "short"), record("sage", 0, 92.0, guided=False)]
    found = scorecard.runs(CELLS, every, QUANTITIES)
    assert found[1, "cifar10, preactresnet18", "sage"] == {"paper": every[:2]}
    assert found[1, "cifar10, preactresnet18", "vanilla"] == {"short": every[3:4]}
    assert found[3, "cifar10, search", "10 %"] == {"paper": every[2:3]}
    assert found[7, "cifar10, u", "u 0.6"] == {"paper": every[:2]}
    assert found[3, "cifar10, components", "without saliency-guided mixup"] == {"paper": every[4:]}
    assert not any(table in (4, 5, 6) for table, *_ in found)  # nobody asked for their quantities


def test_verdicts_on_cells():
    """Against the formula written out: our mean of n and the paper's of 3, the same standard
    deviation, both with the binomial error of 10,000 images."""
    place = (1, "cifar10, preactresnet18", "vanilla")  # reported: 95.07

    def said(*values, kind="paper"):
        return scorecard.verdicts(
            book([record("vanilla", k, v, kind) for k, v in enumerate(values)]))[place]
    assert said() == "not run" and said(95.0, 95.1) == said(95.0) == "fewer than 3 seeds"
    for kind in ("shortened", "longer", "changed"):
        assert said(95.0, 95.1, 95.2, kind=f"{kind}: epochs 3") == f"{kind} recipe"
    noise, same = np.array([-0.3, 0.1, 0.0, 0.2]), "not distinguishable"
    seeds = stats.t.ppf(0.975, 3) * np.std(noise, ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    for gap in np.arange(-1.5, 1.5, 0.05):
        right = 95.07 + gap + noise
        images = stats.norm.ppf(0.975) * np.sqrt(2 * np.mean(right * (100 - right)) / 10_000)
        reach = np.hypot(seeds, images)
        if abs(abs(gap) - reach) > 0.01:
            word = same if abs(gap) < reach else "higher" if gap > 0 else "lower"
            assert said(*right) == word, gap
    # four equal numbers have no standard deviation, and decide nothing
    assert said(*[99.0] * 4) == same


def test_cells_of_a_table_are_judged_together():
    """A difference that would be decided on its own is not where seven others are asked too."""
    noise = np.array([-0.02, 0.0, 0.02])
    alone = [record("vanilla", k, 95.07 + 0.7 + e) for k, e in enumerate(noise)]
    reported = next(row for row in REPORTED[1] if row["dataset"] == "cifar10")
    others = [record(m, k, reported[m] + e)
              for m in ("mixup", "cutmix", "sage", "puzzlemix", "manifold_mixup")
              for k, e in enumerate(noise)]
    place = (1, "cifar10, preactresnet18", "vanilla")
    assert scorecard.verdicts(book(alone))[place] == "higher"
    assert scorecard.verdicts(book(alone + others))[place] == "not distinguishable"


RULE = dict(says="it is", table=1, rows="cifar10,", better=["sage"], than=["vanilla", "mixup"])


def test_a_claim_as_printed():
    assert scorecard.as_printed(RULE, CELLS) == (2, 2)
    assert scorecard.as_printed({**RULE, "better": ["vanilla"], "than": "others"}, CELLS) == (0, 7)
    assert scorecard.as_printed({**RULE, "better": ["mixup"], "than": ["sage", "vanilla"]},
                                CELLS) == (1, 2)
    assert scorecard.as_printed({**RULE, "better": ["mixup"], "than": ["sage"], "margin": 0.99},
                                CELLS) == (1, 1)
    hours = dict(RULE, table=6, rows=".", than=["vanilla"])
    assert scorecard.as_printed(hours, CELLS) == (0, 2)
    assert scorecard.as_printed({**hours, "margin": 1.05}, CELLS) == (2, 2)
    with pytest.raises(ValueError, match="'it is' is about no cell of table 1"):
        scorecard.pairs({**RULE, "better": ["sagee"]}, CELLS)


def measured(every, clock=None, **change):
    count = scorecard.as_measured({**RULE, **change}, book(every, clock))
    return count, scorecard.word(count)


def counts(of, run, leaning, for_, against, *kinds):
    return {"of": of, "run": run, "leaning": leaning, "for": for_, "against": against,
            "kinds": [*kinds]}


VANILLA = [record("vanilla", k, 80.0 + k) for k in range(3)]
BETTER = [record("sage", k, 84.0 + k + k / 100) for k in range(3)]
EQUAL = [record("sage", k, 84.0 + k) for k in range(3)]  # 4.00 above in each seed
MIXUP = [record("mixup", k, 88.0 + k + k / 50) for k in range(3)]
TURNED = dict(better=["vanilla"], than=["sage"])


@pytest.mark.parametrize("runs, rule, word", [
    ([], {}, "not run"), (BETTER + VANILLA, {}, "undecided"),
    (BETTER + VANILLA, dict(than=["vanilla"]), "supported"),
    (BETTER + VANILLA, TURNED, "contradicted"),
    (BETTER + VANILLA, dict(TURNED, margin=7), "supported"),
    (BETTER[:1] + VANILLA[:1], {}, "undecided"), (BETTER[:2] + VANILLA[:2], {}, "undecided"),
    (BETTER + VANILLA + MIXUP, {}, "mixed"),
], ids=["no run", "a method is missing", "above", "below", "below by less than the margin",
        "one seed", "two seeds", "above one, below the other"])
def test_a_claim_as_measured_seed_by_seed(runs, rule, word):
    assert measured(runs, **rule)[1] == word


@pytest.mark.parametrize("runs, want", [
    ([], counts(2, 0, 0, 0, 0)), (BETTER + VANILLA, counts(2, 1, 1, 1, 0, "paper")),
    (EQUAL + VANILLA, counts(2, 1, 1, 0, 0, "paper"))], ids=["no run", "above", "always by 4.00"])
def test_comparisons_are_counted_by_what_they_decide(runs, want):
    assert measured(runs)[0] == want


@pytest.mark.parametrize("for_, word", [(60, "supported"), (50, "mixed")])
def test_a_claim_about_a_share_needs_that_share(for_, word):
    assert scorecard.word(counts(64, 64, for_, for_, 64 - for_, "paper"), 0.9) == word


@pytest.mark.parametrize("kind",
                         ["shortened: epochs 30", "longer: epochs 600", "changed: precision bf16"])
@pytest.mark.parametrize("sides", [dict(TURNED), dict(better=["sage"], than=["vanilla"])],
                         ids=["below", "above"])
def test_another_recipe_neither_supports_nor_contradicts(kind, sides):
    runs = [record(m, k, a + k / 10 * (m == "sage"), kind)
            for m, a in (("sage", 90), ("vanilla", 50)) for k in range(5)]
    assert measured(runs, **sides)[1] == f"{kind.split(':')[0]} recipe"


def test_pairs_are_of_one_recipe_the_papers_if_there_is_one():
    short = [record(m, k, 50.0 + k, "short") for m in ("sage", "vanilla", "mixup")
             for k in range(2)]
    assert measured(short)[0] == counts(2, 2, 0, 0, 0, "short")
    # no partner yet
    assert measured([*short, record("sage", 0, 90.0)])[0] == counts(2, 2, 0, 0, 0, "short")
    long = [record(m, 0, a) for m, a in (("sage", 90.0), ("vanilla", 80.0))]
    assert measured(short + long)[0] == counts(2, 1, 1, 0, 0, "paper")


def test_times_are_compared_by_their_ranges_and_another_machine_supports_nothing():
    clock = {("preactresnet18", "sage"): [1.9, 2.0, 2.1],
             ("preactresnet18", "vanilla"): [0.9, 1.0, 1.2]}
    change = dict(table=6, rows="cifar10,", better=["sage"], than=["vanilla"])
    assert measured([], clock, **change) == (counts(1, 1, 0, 0, 1, "clock"), "another machine")
    assert measured([], clock, margin=1.05, **change)[0] == counts(1, 1, 1, 0, 0, "clock")
    assert measured([], clock, margin=1.4, **change)[0] == counts(1, 1, 1, 1, 0, "clock")
    assert measured([], {}, **change)[1] == "not run"


READING = dict(says="it is", plan="readings", rows="cifar10$", better=["sage"],
               than=["box", "class score"])
RATE = dict(says="it is", plan="comixup_rate", rows=".", better=["comixup, lr 0.12"],
            than=["comixup, lr 0.2"], margin=-50)


def of_size(size, method, seed, accuracy, lr=0.0, **options):
    """A record with the parameters of a book's size, such as a plan's run has."""
    given = parameters.checked(**{**plans.defaults("train"), **plans.sizes()[size]["parameters"],
                                  "dataset": "cifar10", "model": "preactresnet18", "lr": lr,
                                  "method": method, "seed": seed, "options": options})
    kind = "paper" if size == "paper" and lr != 0.2 else f"shortened: {size}"
    made = record(method, seed, accuracy, kind, **options)
    made["dataset"]["height"], made["model"]["width"] = 32, given["width"]
    return {**made, "parameters": parameters.recorded(given)}


def planned(every, rule):
    count = scorecard.as_measured(rule, scorecard.Book(CELLS, {}, QUANTITIES, {}, every))
    return count, scorecard.word(count)


def three(size, method, mean, spread=0.0, **given):
    return [of_size(size, method, k, mean + k + spread * k, **given) for k in range(3)]


def test_a_claim_about_a_plan_is_decided_at_the_papers_size():
    sage = three("paper", "sage", 90.0)
    box = three("paper", "sage_controls", 84.0, 0.01, mixing="box")
    score = three("paper", "sage_controls", 96.0, 0.01, gradient_of="score")
    assert planned([], READING) == (counts(2, 0, 0, 0, 0), "not run")
    assert planned(sage + box, READING)[1] == "undecided"
    assert planned(sage + box, dict(READING, than=["box"]))[1] == "supported"
    assert planned(sage + score, dict(READING, than=["class score"]))[1] == "contradicted"
    found, word = planned(sage + box + score, READING)
    assert found == counts(2, 2, 1, 1, 1, "paper") and word == "mixed"
    assert planned(sage[:2] + box, READING)[1] == "undecided"  # two seeds
    # another size decides nothing, and counts for nothing beside the paper's
    laptop = three("laptop", "sage", 60.0) + three("laptop", "sage_controls", 70.0, 0.01,
                                                   gradient_of="score")
    assert planned(laptop, READING) == (counts(2, 1, 0, 0, 1, "shortened: laptop"),
                                        "shortened recipe")
    assert planned(laptop + sage + box, READING)[0] == counts(2, 1, 1, 1, 0, "paper")


@pytest.mark.parametrize("mean, word", [(10.0, "supported"), (95.0, "contradicted"),
                                        (46.1, "undecided")])
def test_a_learning_rate_that_a_row_changes_on_purpose_is_still_the_papers_size(mean, word):
    tables = three("paper", "comixup", 96.0)  # Table 1's own runs, which name no rate
    fast = three("paper", "comixup", mean, 0.01, lr=0.2)
    assert planned(tables, RATE)[1] == "not run" and planned(tables + fast, RATE)[1] == word


def test_a_row_that_a_plan_lacks_is_one_clear_error():
    with pytest.raises(ValueError, match="the plan readings has no row 'boxes'; its rows: vanilla"):
        scorecard.planned_pairs(dict(READING, than=["boxes"]))


@pytest.mark.parametrize("word, rule", [
    ("in all comparisons", dict(better=["sage"], than="others")),
    ("in all comparisons", dict(better=["mixup"], than=["vanilla"])),
    ("in some", dict(better=["mixup"], than=["vanilla", "sage"])),
    ("in none", dict(better=["vanilla"], than="others")),
    ("in none", dict(better=["mixup"], than=["cutmix"])),
    ("said in words", dict(found="a chapter shows it")),
    ("no numbers printed", dict(plan="readings"))])
def test_claims_are_counted_by_how_they_fare_as_printed(word, rule):
    """By hand, from the numbers of Table 1 for CIFAR-10 (95.07 vanilla to 96.95 SAGE)."""
    assert scorecard.printed_word({**RULE, **rule}, CELLS) == word


def test_means_are_cells_too():
    wide = scorecard.with_means(CELLS)
    mean = next(c.reported for c in wide if (c.row, c.label) == ("cifar10, mean", "sage"))
    assert len(wide) == len(CELLS) + 16 and mean == pytest.approx((83.75 + 90.64 + 91.67) / 3)


def test_progress_counts_each_number_once():
    runs = [record("vanilla", k, 95 + k / 10) for k in range(3)] + [record("mixup", 0, 96.0)]
    runs += [record("cutmix", 0, 70.0, "shortened: epochs 3")]
    made = book(runs, {("preactresnet18", "sage"): [1.9, 2.0, 2.1]})
    count = scorecard.progress(made)  # vanilla is in Table 3 too
    assert count == {"all": 131, "reproduced": 2, "begun": 1, "other": 2, "none": 126}
    text = scorecard.progress_text(made)
    assert "reproduced 2 with" in text and "1 more with fewer seeds" in text
    assert "126 have not" in text
