"""The scorecard: every cell of the paper's tables, verdicts by the obvious formulas, claims asked of numbers."""
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from sagelib import catalog, methods, records, scorecard, summary

TOP = Path(__file__).parents[2]
REPORTED = {k: records.reported(k) for k in range(1, 8)}
TUNED = {data: catalog.settings(methods, "sage", "paper", data, "preactresnet18") for data in ("cifar10", "cifar100")}
CELLS = scorecard.cells(REPORTED, TUNED)
CLAIMS = yaml.safe_load((TOP / "book/claims.yml").read_text())


def record(method, seed, accuracy, kind="paper", dataset="cifar10", **options):
    return {"method": {"name": method, "settings": "paper"}, "seed": seed, "kind": kind,
            "final": {"accuracy": accuracy}, "parameters": {"options": options},
            "dataset": {"name": dataset}, "model": {"name": "preactresnet18"}}


QUANTITIES = {"accuracy": summary.final}


def test_every_number_of_the_tables_is_a_cell_once():
    assert len(CELLS) == len({(c.table, c.row, c.label) for c in CELLS}) == 131
    for number, rows in REPORTED.items():
        printed = sorted(v for row in rows if row.get("perturbation") != "rank" for k, v in row.items()
                         if isinstance(v, float) and k != "setting")
        assert sorted(c.reported for c in CELLS if c.table == number) == printed


def test_a_cell_knows_the_run_that_measures_it():
    def of(table, row, label):
        return next((c.method, c.options) for c in CELLS if (c.table, c.row, c.label) == (table, row, label))
    assert of(1, "cifar100, wrn16_8", "puzzlemix") == ("puzzlemix", {})
    assert of(3, "cifar10, components", "without rearrangement") == ("sage", {"rearranged": False})
    assert of(3, "cifar100, search", "100 %") == ("sage", {"fraction": 1.0})
    assert of(7, "cifar10, eta", "eta 1.0") == ("sage", {"reuse": 0.0})
    assert of(3, "cifar10, search", "1 %") == of(7, "cifar10, eta", "eta 0.7") == ("sage", {})
    assert of(7, "cifar10, u", "u 0.6") == of(7, "cifar100, u", "u 0.5") == ("sage", {})  # the tuned ones
    assert of(7, "cifar100, u", "u 0.6") == ("sage", {"u": 0.6})


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
    assert scorecard.verdict(95.0, [], None) == "not run"
    assert scorecard.verdict(95.0, [95.0, 95.1], "shortened: epochs 3") == "shortened recipe"
    assert scorecard.verdict(95.0, [95.0], "paper") == "one seed"
    assert scorecard.verdict(77.9, [78.0, 77.8], "few_shot") == "another recipe"
    values = [94.6, 95.0, 94.9, 94.4]
    reach = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    same = "not distinguishable"
    for off, expected in ((0.99, same), (1.01, "lower"), (-0.99, same), (-1.01, "higher")):
        assert scorecard.verdict(np.mean(values) + off * reach, values, "paper") == expected


RULE = dict(says="it is", table=1, rows="cifar10,", better=["sage"], than=["vanilla", "mixup"])


def test_a_claim_as_printed():
    assert scorecard.as_printed(RULE, CELLS) == (2, 2)
    assert scorecard.as_printed({**RULE, "better": ["vanilla"], "than": "others"}, CELLS) == (0, 7)
    assert scorecard.as_printed({**RULE, "better": ["mixup"], "than": ["sage", "vanilla"]}, CELLS) == (1, 2)
    assert scorecard.as_printed({**RULE, "better": ["mixup"], "than": ["sage"], "margin": 0.99}, CELLS) == (1, 1)
    hours = dict(RULE, table=6, rows=".", than=["vanilla"])
    assert scorecard.as_printed(hours, CELLS) == (0, 2)
    assert scorecard.as_printed({**hours, "margin": 1.05}, CELLS) == (2, 2)
    with pytest.raises(ValueError, match="'it is' is about no cell of table 1"):
        scorecard.pairs({**RULE, "better": ["sagee"]}, CELLS)


def measured(every, clock=None, **change):
    found = scorecard.runs(CELLS, every, QUANTITIES)
    count = scorecard.as_measured({**RULE, **change}, CELLS, found, QUANTITIES, clock or {})
    return count, scorecard.word(count)


def counts(of, run, leaning, for_, against, *kinds):
    return {"of": of, "run": run, "leaning": leaning, "for": for_, "against": against, "kinds": [*kinds]}


def test_a_claim_as_measured_seed_by_seed():
    vanilla = [record("vanilla", k, 80.0 + k) for k in range(3)]
    better = [record("sage", k, 81.0 + k + k / 100) for k in range(3)]
    assert measured([]) == (counts(2, 0, 0, 0, 0), "not run")
    assert measured(better + vanilla) == (counts(2, 1, 1, 1, 0, "paper"), "undecided")
    assert measured(better + vanilla, than=["vanilla"])[1] == "supported"
    assert measured(better + vanilla, better=["vanilla"], than=["sage"])[1] == "contradicted"
    assert measured(better + vanilla, better=["vanilla"], than=["sage"], margin=1.5)[1] == "supported"
    assert measured(better[:1] + vanilla[:1])[1] == "undecided"  # one seed
    mixup = [record("mixup", k, 85.0 + k + k / 100) for k in range(3)]
    assert measured(better + vanilla + mixup)[1] == "mixed"
    assert scorecard.word(counts(64, 64, 60, 60, 4), 0.9) == "supported"
    assert scorecard.word(counts(64, 64, 50, 50, 14), 0.9) == "mixed"


def test_pairs_are_of_one_recipe_the_papers_if_there_is_one():
    short = [record(m, k, 50.0 + k, "short") for m in ("sage", "vanilla", "mixup") for k in range(2)]
    assert measured(short)[0] == counts(2, 2, 0, 0, 0, "short")
    assert measured([*short, record("sage", 0, 90.0)])[0] == counts(2, 2, 0, 0, 0, "short")  # no partner yet
    long = [record(m, 0, a) for m, a in (("sage", 90.0), ("vanilla", 80.0))]
    assert measured(short + long)[0] == counts(2, 1, 1, 0, 0, "paper")


def test_many_pairs_are_decided_together():
    p = [0.001, 0.2, 0.012, 0.013, 0.04]
    assert scorecard.holm(p) == [1, 0, 1, 1, 0]  # below 0.05 / 5, / 4, / 3; 0.04 is above 0.05 / 2
    assert scorecard.holm([0.02, 0.03, 0.04]) == [0, 0, 0] and scorecard.holm([]) == []


def test_times_are_decided_where_their_ranges_are_apart():
    clock = {("preactresnet18", "sage"): [1.9, 2.0, 2.1], ("preactresnet18", "vanilla"): [0.9, 1.0, 1.2]}
    change = dict(table=6, rows="cifar10,", better=["sage"], than=["vanilla"])
    assert measured([], clock, **change)[1] == "contradicted"
    assert measured([], clock, margin=1.05, **change) == (counts(1, 1, 1, 0, 0, "clock"), "undecided")
    assert measured([], clock, margin=1.4, **change)[1] == "supported"


def test_the_books_claims_can_be_asked_and_lead_to_chapters():
    wide = scorecard.with_means(CELLS)
    assert len(wide) == len(CELLS) + 16 and len({c["says"] for c in CLAIMS}) == len(CLAIMS) > 20
    printed = []
    for claim in CLAIMS:
        assert (TOP / f"notebooks/{claim['chapter']}.ipynb").exists() and claim["place"]
        if "found" not in claim:
            printed.append((claim["says"].split()[0], *scorecard.as_printed(claim, wide)))
    assert {("Saliency-based", 59, 64), ("Saliency-based", 30, 64), ("Among", 5, 6), ("SAGE", 0, 1)} <= {*printed}
    mean = next(c.reported for c in wide if (c.row, c.label) == ("cifar10, mean", "sage"))
    assert mean == pytest.approx((83.75 + 90.64 + 91.67) / 3)
