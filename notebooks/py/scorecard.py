# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     notebook_metadata_filter: kernelspec,jupytext
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Scorecard
#
# Every number in the paper's seven tables {cite:p}`ma2022sage` and every claim that can be asked of numbers, beside what this book
# has measured. It is computed here, from the tables as printed, from our records and from a list of claims; no number is typed. Where a
# claim is no matter of a table, what the chapter shows is said in words.
#
# What the words mean, for a **cell** of a table:
#
# - *not run*: there is no record. Most cells are of this kind; the full recipe needs a GPU for days.
# - *shortened recipe*: there are records, of a narrower network or a shorter training. Such a number stands beside the paper's to
#   be seen; it neither confirms nor refutes it.
# - *one seed*: the paper's recipe, but a single run.
# - *agrees*, *higher*, *lower*: the paper's recipe with several seeds, and whether the difference leaves out zero at 95 %
#   ([how](11_image_classification.ipynb)).
# - *another recipe*: few-shot accuracy; the paper does not say how it trained those networks.
# - *another machine*: GPU hours on a T4; ours are times of a step over vanilla's, on the hardware that the record names.
#
# For a **claim** there are two answers. *As printed* asks the paper's own numbers: in how many of the comparisons that the claim is
# about does it hold? *As measured* asks our records, seed by seed: *supported* if every comparison is decided for it, *contradicted*
# if some are decided against it and none for it, *mixed* if there are both, and *undecided* as long as there are too few seeds. A
# shortened recipe and another machine can be asked too, and are named: the answer then holds *there*.

# %% tags=["hide-input", "parameters"]
convention = "normalised, clamped"  # of the budgets of Tables 4 and 5: see "Out of distribution"

# %% tags=["hide-input"]
import collections

import yaml
from IPython.display import display

from sagelib import catalog, methods, records, robustness, scorecard, show, summary

reported = {k: records.reported(k) for k in range(1, 8)}
tuned = {data: catalog.settings(methods, "sage", "paper", data, "preactresnet18") for data in ("cifar10", "cifar100")}
CHAPTERS = {1: "11_image_classification", 2: "10_few_shot", 3: "12_ablations", 4: "09_out_of_distribution",
            5: "09_out_of_distribution", 6: "13_cost", 7: "12_ablations"}
titles = {name: name[3:].replace("_", " ").capitalize() for name in CHAPTERS.values()} | {
    "05_algorithm_1": "Algorithm 1", "08_search": "The search"}
cells = scorecard.cells(reported, tuned)
every = records.every(records.RESULTS) + records.every(records.RESULTS, "few_shot")
assert len(cells) == 32 + 7 + 16 + 24 + 24 + 16 + 12

# %% tags=["hide-input"]
BUDGET = dict(linf=robustness.LINF, l2=robustness.L2, variance=robustness.VARIANCE)


def perturbed(record):
    """perturbation -> accuracy, and their mean; empty without an evaluation on the whole test set."""
    found = records.evaluation(record, "robustness", **BUDGET, images=10_000)
    one = {p: found["perturbed"][convention][p] for p in robustness.PERTURBATIONS} if found else {}
    return one | ({"mean": sum(one.values()) / len(one)} if one else {})


def few_shot(record):
    """Accuracy of five-way episodes with five shots, as in Table 2; None for other records."""
    return next((e["accuracy"] for e in record.get("episodes", ()) if (e["ways"], e["shots"], e["distance"]) == (5, 5, "cosine")), None)


quantities = {"accuracy": lambda r: r["final"]["accuracy"] if "final" in r else None, "few-shot accuracy": few_shot, **{p: lambda r, p=p: perturbed(r).get(p) for p in (*robustness.PERTURBATIONS, "mean")}}
clock, machines = {}, set()
for record in records.timings(records.RESULTS, "step_time"):  # the newest of each network stands
    if {r["name"] for r in record["rows"]} >= {c.method for c in cells if c.table == 6}:
        clock |= {(record["parameters"]["model"], r["name"]): [2 * r["ratio"][k] for k in ("low", "median", "high")]
                  for r in record["rows"] if "ratio" in r}
        machines.add("a " + record["hardware"]["gpu"] if record["hardware"]["gpu"] else "a CPU")
found = scorecard.runs(scorecard.with_means(cells), every, quantities)

# %% tags=["hide-input"]
def place(claim, pairs):
    """Where the measurement was made, if not by the paper's recipe or machine."""
    if claim["table"] == 6:
        return "on " + ", ".join(sorted(machines))
    kinds = {found[key][0] for pair in pairs for c in pair if (key := (c.table, c.row, c.label)) in found}
    return "" if kinds == {"paper"} else "another recipe" if kinds == {"few_shot"} else "shortened recipe"


def claim_row(claim):
    """says, place, as printed, as measured, verdict, chapter"""
    chapter = f"[{titles[claim['chapter']]}]({claim['chapter']}.ipynb)"
    if "found" in claim:
        return [claim["says"], claim["place"], claim["found"], "", "see the chapter", chapter]
    holds, of = scorecard.as_printed(claim, wide)
    count = scorecard.as_measured(claim, wide, found, quantities, clock)
    word, ran = scorecard.word(count), ""
    if count["run"]:
        word += f", {there}" if (there := place(claim, scorecard.pairs(claim, wide))) else ""
        ran = f"{count['run']} of {of} run, {count['leaning']} lean this way; decided: {count['for']} for, {count['against']} against"
    return [claim["says"], claim["place"], "holds" if holds == of else f"holds in {holds} of {of}", ran, word, chapter]


wide = scorecard.with_means(cells)
claims = yaml.safe_load((records.RESULTS.parent / "claims.yml").read_text())
claim_rows = [claim_row(claim) for claim in claims]


# %% tags=["hide-input"]
def evidence(found_records, suffix=""):
    """Links to each run's executed notebook, or to its record where that is all there is."""
    links = []
    for record in found_records:
        file = records.path(record, "../book/results")
        ran = records.path(record, records.RESULTS)
        ran = ran.with_name(f"{ran.stem}{suffix}.ipynb")
        links.append(f'<a href="{file.with_name(ran.name) if ran.exists() else file}">seed {record["seed"]}</a>')
    return ", ".join(links)


def cell_row(cell):
    """where, row, label, reported, measured, verdict, chapter, runs"""
    start = [f"Table {cell.table}", cell.row, cell.label, f"{cell.reported:g}"]
    end = f"[{titles[CHAPTERS[cell.table]]}]({CHAPTERS[cell.table]}.ipynb)"
    if cell.table == 6:
        time = clock.get((cell.model, cell.method))
        return [*start, f"{time[1]:.2f} × vanilla" if time else "", "another machine" if time else "not run", end, ""]
    kind, ran = found.get((cell.table, cell.row, cell.label), (None, []))
    values = [quantities[cell.quantity](r) for r in ran]
    link = evidence(ran, "-robustness" if cell.table in (4, 5) else "")
    return [*start, str(summary.spread(values)) if values else "", scorecard.verdict(cell.reported, values, kind), end, link]


cell_rows = [cell_row(cell) for cell in cells]
assert len(cell_rows) == len(cells)

# %% [markdown]
# ## How far we are

# %% tags=["hide-input"]
verdicts = collections.Counter(row[5] for row in cell_rows)
assert sum(verdicts.values()) == 131
display(show.table(["verdict on a cell", "cells"], [*verdicts.most_common()]),
        show.table(["claims", "as printed", "as measured"], [
            ["bear it out", sum(r[2] == "holds" for r in claim_rows), sum(r[4].startswith("supported") for r in claim_rows)],
            ["in part, or undecided", sum(r[2].startswith("holds in") and not r[2].startswith("holds in 0") for r in claim_rows),
             sum(r[4].startswith(("undecided", "mixed")) for r in claim_rows)],
            ["do not", sum(r[2].startswith("holds in 0") for r in claim_rows), sum(r[4].startswith("contradicted") for r in claim_rows)],
            ["not run", "", sum(r[4] == "not run" for r in claim_rows)],
            ["not a matter of a table", *[sum(r[4] == "see the chapter" for r in claim_rows)] * 2]]))

# %% [markdown]
# Any cell can be run by anyone: [the plans](11_image_classification.ipynb) name its parameters, and a record that is put into
# `book/results` appears here when this page is run again.
#
# ## The claims

# %% tags=["hide-input", "scorecard"]
show.table(["claim", "place", "as printed", "as measured", "verdict", "chapter"], claim_rows)

# %% [markdown]
# ## The tables, cell by cell
#
# Accuracies in percent, mean ± sample deviation over seeds and their number; Table 6 in hours, and ours as multiples of vanilla's step.
# Tables 4 and 5 are measured with the budgets in normalised values, the convention that comes nearer to the printed numbers. *Runs*
# leads to the executed notebooks and the records.

# %% tags=["hide-input", "scorecard"]
show.table(["table", "row", "cell", "reported", "measured", "verdict", "chapter", "runs"], cell_rows)
