"""The paper's numbers in book/reported against its tables as printed; the lists of its claims
(book/claims.yml) and of its disagreements with the authors' code (book/disagreements.yml)."""
import re
from pathlib import Path

import pytest
import yaml

from sagelib import catalog, methods, models
from sagelib.bench import records, scorecard
from sagelib.bench.paths import TOP

TEXT = (Path(__file__).parent / "paper_tables.txt").read_text()
PRINTED = [[cell.strip() for cell in line.split("|")]
           for line in TEXT.splitlines()
           if line.startswith("Table")]
NAMES = {
    "Vanilla": "vanilla", "Mixup": "mixup", "CutMix": "cutmix", "Manifold": "manifold_mixup",
    "SaliencyMix": "saliencymix", "Puzzle Mix": "puzzlemix", "Co-Mixup": "comixup", "SAGE": "sage",
    "CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "CIFAR10": "cifar10", "CIFAR100": "cifar100",
    "mini-ImageNet": "mini_imagenet", "PreActResNet18": "preactresnet18", "WRN16": "wrn16_8",
    "ResNext29": "resnext29_4_24", "ResNet12": "resnet12", "Rank": "rank",
    "SAGE w/o SM": "without saliency-guided mixup", "SAGE w/o OR": "without rearrangement",
    "FGSM": "fgsm", "FGM": "fgm", "Gaussian": "gaussian", "1%": "1 %", "10%": "10 %",
    "50%": "50 %", "100%": "100 %"}


def number(cell):
    try:
        return float(cell)
    except ValueError:
        return NAMES.get(cell, cell)


@pytest.mark.parametrize("table", range(1, 8))
def test_every_number_is_the_papers(table):
    header, *rows = [row[1:] for row in PRINTED if row[0] == f"Table {table}"]
    keys = [NAMES.get(name, name) for name in header]
    assert records.reported(table) == [dict(zip(keys, map(number, row), strict=True))
                                       for row in rows]


def test_the_rows_and_columns_are_names_that_users_type():
    for row in (*records.reported(1), *records.reported(2), *records.reported(6)):
        assert row["model"] in catalog.names(models)
        assert set(row) - {"dataset", "model"} <= set(catalog.names(methods))


CLAIMS = yaml.safe_load((TOP / "book/claims.yml").read_text())
RULES = [claim for claim in CLAIMS if "table" in claim]
PLANNED = [claim for claim in CLAIMS if "plan" in claim]
BOUNDED = [claim for claim in RULES if {"margin", "share"} & set(claim)]
CELLS = scorecard.with_means(scorecard.printed())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["says"][:60])
def test_a_claim_says_where_it_is_made_and_where_the_book_looks_into_it(claim):
    assert re.search(r"Abstract|[Ss]ection|[Aa]ppendix|Table|Figure", claim["place"])
    assert (TOP / f"notebooks/{claim['chapter']}.ipynb").exists()
    rule, bound = {"rows", "better", "than"}, {"margin", "share"} & set(claim)
    ways = [rule | {"table"}, rule | {"plan"}, {"found"}]
    assert set(claim) - bound - {"margin_from", "says", "place", "chapter"} in ways
    assert "found" not in claim or claim["found"].endswith(".")
    assert bool(bound) == bool(claim.get("margin_from", "").strip())  # every bound has its reason


def test_the_claims_are_told_apart_and_hold_as_often_as_the_book_says():
    assert len({c["says"] for c in CLAIMS}) == len(CLAIMS) > 20
    printed = {(claim["says"].split()[0], *scorecard.as_printed(claim, CELLS)) for claim in RULES}
    assert printed >= {("Saliency-based", 59, 64), ("Saliency-based", 30, 64), ("Among", 5, 6),
                       ("SAGE", 0, 1)}


@pytest.mark.parametrize("part", [
    "definition of saliency", "Co-Mixup diverges on CIFAR-10 with a learning rate of 0.2",
    "diversity of the mixed images falls", "Puzzle Mix and Co-Mixup improve the clean"])
def test_claims_without_a_table_of_their_own_are_listed(part):
    assert sum(part in claim["says"] for claim in CLAIMS) == 1


def test_words_of_what_was_found_do_not_outrun_their_evidence():
    """Neither the built-in shapes nor a CPU nor one unrecorded measurement decides a claim."""
    for found in (claim["found"] for claim in CLAIMS if "found" in claim):
        assert not re.search(r"so it is|confirm|refute|prove|(?<!neither )support|is true", found,
                             re.I)
        if "CPU" in found and "H200" not in found:
            assert re.search(r"On a GPU .* not been timed", found)
        assert "H200" not in found or "no record" in found


@pytest.mark.parametrize("claim", RULES, ids=lambda claim: claim["says"][:60])
def test_a_rule_names_labels_of_its_table(claim):
    labels = {c.label for c in CELLS
              if c.table == claim["table"] and re.search(claim["rows"], c.row)}
    assert set(claim["better"]) <= labels
    assert claim["than"] == "others" or set(claim["than"]) <= labels


@pytest.mark.parametrize("claim", PLANNED, ids=lambda claim: claim["says"][:60])
def test_a_rule_about_a_plan_names_its_rows(claim):
    asked = scorecard.planned_pairs(claim)
    data = {"readings": ["cifar10", "cifar100"], "comixup_rate": ["cifar10"]}[claim["plan"]]
    assert asked == [(d, a, b) for d in data for a in claim["better"] for b in claim["than"]]
    assert claim.get("margin", -50) == -50 and (
        "margin" not in claim or claim["margin_from"].startswith("our choice"))


def resolution(percent):
    """The margin of the header of claims.yml: what two means of three runs can resolve."""
    return 1.96 * 0.1445 * (percent * (100 - percent) / (94 * 6)) ** 0.5 * (2 / 3) ** 0.5


@pytest.mark.parametrize("claim", BOUNDED, ids=lambda claim: claim["says"][:60])
def test_a_margin_follows_from_its_reason(claim):
    kind, bound = claim["margin_from"].split()[0].strip(":"), claim.get("margin", 0)
    if kind == "resolution":
        percent = int(re.match(r"resolution at (\d+) %", claim["margin_from"])[1])
        assert abs(bound) == round(resolution(percent), 2) and f"{abs(bound):g}" in claim["says"]
        assert {c.dataset for pair in scorecard.pairs(claim, CELLS) for c in pair} == {
            {96: "cifar10", 80: "cifar100"}[percent]}
    else:
        assert kind in ("our", "counted")
    agrees = re.search(r"the printed numbers agree from (-?[\d.]+) on", claim["margin_from"])
    if agrees:  # the least margin with which all comparisons hold, to the digits that are given
        least, step = float(agrees[1]), 10.0 ** -len(agrees[1].split(".")[1])
        for margin, holds in ((least + 1e-9, True), (least - step, False)):
            word = scorecard.printed_word({**claim, "margin": margin}, CELLS)
            assert (word == "in all comparisons") == holds


DISAGREEMENTS = yaml.safe_load((TOP / "book/disagreements.yml").read_text())
KNOWN = """
    norm definition discarded mean-loss batchnorm-mode batchnorm-statistics eta eta-one order
    gaussian zeta lambda-floor empty-map shifts candidates fill lambda upper-lambda partner
    prob-mix names loss optimiser crop schedule program-defaults reported-number validation
    networks network-names data-loading comixup-prior comixup-rate comixup-threshold
    comixup-seeds solvers cutmix-always saliencymix-detector saliencymix-box ablations budgets
    fgsm robustbench ranks few-shot-network few-shot-recipe hours one-per-cent figure-5a
    no-method references""".split()


def test_every_known_disagreement_is_listed_once():
    assert [entry["key"] for entry in DISAGREEMENTS] == KNOWN


@pytest.mark.parametrize("entry", DISAGREEMENTS, ids=lambda entry: entry["key"])
def test_a_disagreement_names_both_places_and_the_default(entry):
    assert set(entry) - {"options"} == {"key", "group", "title", "paper", "code", "tables", "here",
                                        "other"}
    assert all(entry[k].strip() for k in set(entry) - {"options"})
    assert re.search(r"Abstract|[Ss]ection|[Aa]ppendix|Table|Figure|Equation|Algorithm|papers?:",
                     entry["paper"])
    assert re.search(r"\w\.py:\d+|README|no code|\.py\b", entry["code"])


def test_the_appendix_explains_the_disagreements_in_the_order_of_its_tables():
    text = (TOP / "notebooks/py/appendix_paper_and_code.py").read_text()
    headings = re.findall(r"^# (##+) (.+)$", text, re.M)
    sections = [name for mark, name in headings
                if mark == "###" or name in {entry["group"] for entry in DISAGREEMENTS}]
    listed = [name for entry in DISAGREEMENTS for name in (entry["group"], entry["title"])]
    assert sections == list(dict.fromkeys(listed))
