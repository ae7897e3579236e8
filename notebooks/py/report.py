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
# # Reproduction report
#
# This page reports on the reproduction of SAGE {cite:p}`ma2022sage` in the form that the ML
# Reproducibility Challenge asks for. Every result and count on it is computed: from our records,
# the paper's tables, the plans, and the lists of claims (`book/claims.yml`) and of disagreements
# (`book/disagreements.yml`). The [scorecard](scorecard.ipynb) has each number of the paper's tables
# and each run.

# %% tags=["hide-input", "parameters"]
results = ""  # folder of records; empty: the book's own

# %% tags=["hide-input", "setup"]
import collections

import yaml
from IPython.display import display

from sagelib import catalog, datasets, methods, models, show
from sagelib.bench import (
    paper_recipe,
    paths,
    plans,
    quantities,
    records,
    report,
    scorecard,
    statistics,
    summary,
)
from sagelib.bench.report import count
from sagelib.bench.sweep import estimate
from sagelib.bench.sweep.opening import duration

GROUPS = {
    1: "Accuracy (Table 1)",
    2: "Few-shot accuracy (Table 2)",
    3: "Ablations (Tables 3 and 7)",
    7: "Ablations (Tables 3 and 7)",
    4: "Robustness (Tables 4 and 5)",
    5: "Robustness (Tables 4 and 5)",
    6: "Cost (Table 6)",
    "plan": "Plans only (no printed numbers)",
    None: "In words",
}
MACHINES = {
    "a Tesla T4": "Tesla T4",
    "NVIDIA H200, fp32 (TF32 convolutions)": "NVIDIA H200",
}  # of `estimate.machines`
PLANS = {
    1: "table_1",
    2: "table_2",
    3: "table_3",
    4: "table_4",
    5: "table_4",
    6: "table_6",
    7: "table_7",
}


def folded(title, table):
    """A table that the reader opens."""
    return show.Markdown(f"<details><summary>{title}</summary>\n\n{table.text}\n\n</details>")


# %% tags=["hide-input", "records", "nbval-ignore-output"]
folder = results or records.RESULTS
book = scorecard.book(folder)
trained, few_shot = records.every(folder), records.every(folder, "few_shot")
known = {MACHINES[m.name]: m for m in estimate.machines(folder) if m.name in MACHINES}
RECIPE = {summary.kind_of(r): plans.recipe_name(r) for r in [*trained, *few_shot]}
listed = yaml.safe_load((records.REPORTED.parent / "claims.yml").read_text())
def group_of(claim):
    return GROUPS["plan" if "plan" in claim else claim.get("table")]


claims = dict(
    enumerate(sorted(listed, key=lambda c: [*GROUPS.values()].index(group_of(c))), 1)
)
rules = {k: claim for k, claim in claims.items() if "found" not in claim}
measured = {k: scorecard.as_measured(claim, book) for k, claim in rules.items()}
verdict = {k: scorecard.word(measured[k], claim.get("share", 1)) for k, claim in rules.items()}
printed = {k: scorecard.printed_word(claim, book.wide) for k, claim in claims.items()}
numbers = {
    group: [k for k, c in claims.items() if group_of(c) == group]
    for group in dict.fromkeys(GROUPS.values())
}
DECIDED = ("supported", "contradicted", "mixed", "undecided")


def counted(asked):
    """Claims by verdict: the four that only the paper's recipe can give, then the other answers."""
    words = collections.Counter(verdict[k] for k in asked)
    other = sum(n for word, n in words.items() if word not in (*DECIDED, "not run"))
    return [*(words[word] for word in DECIDED), other, words["not run"]]


# %% [markdown]
# ## Reproducibility summary

# %% tags=["hide-input", "records", "nbval-ignore-output"]
yes, no, both, open_, other, unrun = counted(rules)
about_tables = [k for k, claim in rules.items() if "table" in claim]
on = collections.Counter(printed[k] for k in about_tables)
used = collections.Counter(plans.recipe_name(r) for r in [*trained, *few_shot])
runs = ", ".join(f"{n} of recipe *{name}*" for name, n in used.most_common())
listed_groups = "; ".join(
    f"{group}: claim{'s' if len(ks) > 1 else ''} "
    f"{' to '.join(map(str, dict.fromkeys((ks[0], ks[-1]))))}"
    for group, ks in numbers.items()
    if ks
)
so_far = count(len(trained) + len(few_shot), "training record") + (f": {runs}" if runs else "")
show.Markdown(f"""
**Scope.** We count {count(len(claims), "claim")} in the paper. {len(about_tables)} compare numbers
of its tables; {len(rules) - len(about_tables)} have no printed numbers, but plans of ours can
decide them; the other {len(claims) - len(rules)} are in words. {listed_groups}.

**Methodology.** We reimplemented SAGE and its baselines and checked them against the authors' code.
So far there are {so_far}.

**Results.** {scorecard.progress_text(book)} Of the {len(about_tables)} claims about its tables, the
paper's own means satisfy {on["in all comparisons"]} in all comparisons, {on["in some"]} in some and
{on["in none"]} in none. Verdicts by our records on all {len(rules)}: supported {yes}, contradicted
{no}, mixed {both}, undecided {open_}, only another recipe or machine {other}, not run {unrun}.
Records of another recipe or machine neither support nor contradict a claim.
""")

# %% [markdown]
# **What was easy.** The method: Algorithm 1 is short and nearly complete. **What was hard.** The
# evaluation: several tables have neither published code nor a full description. The
# discussion has the details. **Communication.** None with the authors.
#
# ## Scope of reproducibility
#
# A claim about numbers is a rule: in certain rows of a table, some methods are better than others.
# For a few claims the paper prints no numbers; their rule is about the rows of a plan of ours.
# To test it, all methods that it names are trained with the paper's recipe, and their differences
# over equal seeds are decided together (Holm's procedure); for Table 6 their steps are timed. The
# rule is asked of the printed means too.
# Where a claim says "comparable" or "substantially", it has a margin; the
# [scorecard](scorecard.ipynb) says where each comes from.


# %% tags=["hide-input", "records", "nbval-ignore-output"]
def names(labels):
    return "all others" if labels == "others" else ", ".join(labels)


def rule_text(claim):
    """What would be compared to test a claim."""
    if "found" in claim:
        return f"by other means, in {report.chapter_link(claim['chapter'])}"
    if "plan" in claim:
        pairs = scorecard.planned_pairs(claim)
        margin = f", margin {claim['margin']:+g} points" if "margin" in claim else ""
        return (
            f"Plan `{claim['plan']}.yml` ({'; '.join(dict.fromkeys(data for data, *_ in pairs))}): "
            f"{names(claim['better'])} above {names(claim['than'])}; "
            f"{count(len(pairs), 'comparison')}{margin}"
        )
    pairs = scorecard.pairs(claim, book.wide)
    asked, every = (
        dict.fromkeys(c.row for c in cells)
        for cells in (
            [better for better, _ in pairs],
            [c for c in book.cells if c.table == claim["table"]],
        )
    )
    rows = "all rows" if len(every) > 1 and asked == every else "; ".join(asked)
    margin = (
        f"{claim.get('margin', 0):+.0%} of the time"
        if claim["table"] == 6
        else f"{claim.get('margin', 0):+g} points"
    )
    more = [f"margin {margin}"] if "margin" in claim else []
    more += [f"in {claim['share']:.0%} of them"] if "share" in claim else []
    verb = "faster than" if claim["table"] == 6 else "above"
    tested = ", ".join([count(len(pairs), "comparison"), *more])
    sides = f"{names(claim['better'])} {verb} {names(claim['than'])}"
    return f"Table {claim['table']} ({rows}): {sides}; {tested}"


folded(
    "All claims, and how each is tested",
    show.table(
        ["no.", "claim", "place", "test"],
        [[f"{k}", c["says"], c["place"], rule_text(c)] for k, c in claims.items()],
    ),
)

# %% [markdown]
# A positive margin allows the first method to be so much worse; a negative one asks it to be so
# much better.
#
# ## Methodology
#
# **Implementation.** All methods and networks, and the evaluations of the paper's tables, are our
# own code (`sagelib`). We read the authors' repository, `SamsungLabs/SAGE` at commit `00ce751`, and
# used it to check values: our tests compare mixed images, labels, solutions and a training step
# with what their code computed from the same draws. We fixed the bugs that we found. Where paper
# and code disagree, [Paper and code](appendix_paper_and_code.ipynb) says which of them we follow.
#
# **Models, data and hyperparameters.** They are the paper's (section 4.1 and appendix B), completed
# from the code where the paper is silent.

# %% tags=["hide-input"]
networks = ["preactresnet18", "wrn16_8", "resnext29_4_24"]
sizes = {
    name: sum(p.numel() for p in catalog.load(models, name, classes=10).parameters())
    for name in networks
}
stated = {
    name: catalog.stated(datasets, name, "IMAGES")
    for name in ("cifar10", "cifar100", "mini_imagenet")
}
tuned = [
    (d, m, catalog.settings(methods, "sage", "paper", d, m))
    for d, m in dict.fromkeys((c.dataset, c.model) for c in scorecard.printed() if c.table == 1)
]
p = paper_recipe.PAPER
milestones = " and ".join(f"{share * p['epochs']:.0f}" for share in p["milestones"])
rates = "; ".join(
    f"{lr:g} for {method} on {data}" for (data, method), lr in paper_recipe.LR.items()
)
show.table(
    ["what", "value"],
    [
        [
            "networks",
            "; ".join(f"{name}, {n / 1e6:.1f} million parameters" for name, n in sizes.items()),
        ],
        [
            "data sets",
            "; ".join(
                f"{name}, {s['train']:,} images for training and {s['held_out']:,} for "
                f"evaluation, {s['height']} × {s['width']}"
                + (" (episodes of new classes are the test)" if name == "mini_imagenet" else "")
                for name, s in stated.items()
            ),
        ],
        [
            "training",
            f"{p['epochs']} epochs, batches of {p['batch']}, SGD with "
            f"{'Nesterov ' if p['nesterov'] else ''}momentum {p['momentum']:g}, "
            f"weight decay {p['weight_decay']:g}, loss {p['loss']}, {p['precision']}",
        ],
        ["learning rate", f"{p['lr']:g} ({rates}), times {p['decay']:g} after {milestones} epochs"],
        [
            "augmentation",
            f"random crops after padding by {p['padding']} pixels"
            f"{', random flips' if p['flip'] else ''}",
        ],
        [
            "SAGE",
            "; ".join(
                f"{d}, {m}: " + ", ".join(f"{k} {v:g}" for k, v in options.items())
                for d, m, options in tuned
            ),
        ],
    ],
)

# %% [markdown]
# `u` is the upper bound of $\lambda$. `reuse` is the weight of the clean gradient, $1 - \eta$ of
# the tables. The paper gives no few-shot recipe. The default is that of the work it refers to.
#
# **Recipes.** Only records of *paper*, the recipe above, can support or contradict a claim. The
# other recipes are smaller: *medium* (fewer epochs, half precision), *short* (fewer epochs),
# *laptop* (few images, a narrow network that fits them) and *underfit* (a narrow network, too few
# epochs to fit its images). `book/plans/sizes.yml` defines them. A run of any other recipe is
# called *shortened*, *longer* or *changed*. *few-shot* is the experiment of Table 2: *reference
# set-up* trains as the work that the paper refers to, *book set-up* as the other tables.
#
# **Computational requirements.** The time that the paper's size needs is estimated from counted
# operations at the speed of a timed machine.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
def of_the_paper(run):
    """Whether a run counts for the paper's tables: of Table 2's set-ups the reference's."""
    return run.parameters.get("setup", "reference") == "reference"


every_run = {
    run.name: run
    for plan in dict.fromkeys(PLANS.values())
    for run in plans.read(paths.PLANS / f"{plan}.yml", "paper")[1]
    if "method" in run.parameters and of_the_paper(run)
}
done = {run.name for run, _ in report.recorded(every_run.values(), [*trained, *few_shot])}


def takes(asked):
    """Expected time of runs on each machine, in words."""
    return [
        duration(sum(estimate.hours(run, m) for run in asked)) if asked else ""
        for m in known.values()
    ]


spent = collections.defaultdict(list)
for r in [*trained, *few_shot]:
    spent[r["hardware"]["gpu"] or r["hardware"]["cpu"], plans.recipe_name(r)].append(r)
rows = [
    [
        f"all {count(len(every_run), 'training run')} of the tables at the paper's size",
        *takes(every_run.values()),
    ],
    [
        f"without a record: {len(every_run) - len(done)} of them",
        *takes([r for r in every_run.values() if r.name not in done]),
    ],
]
display(show.table(["estimated time, one run after another", *known], rows))
total = duration(report.machine_hours([*trained, *few_shot]))
display(
    show.table(
        ["time spent, training runs in records", "recipe", "runs", "time"],
        [
            *(
                [machine, f"*{recipe}*", f"{len(rs)}", duration(report.machine_hours(rs))]
                for (machine, recipe), rs in sorted(spent.items())
            ),
            ["all", "", f"{len(trained) + len(few_shot)}", total],
        ],
    )
    if spent
    else show.Markdown("No training run is recorded."),
    show.Markdown(
        f"Speeds: {'; '.join(map(str, known.values()))}. {estimate.NOT_INCLUDED} "
        "The time spent leaves out evaluations after "
        "the training, whose time is not recorded, and runs that left no record."
    ),
)

# %% [markdown]
# ## Results
#
# Counts by group first, then each claim about numbers. *As printed* asks the paper's means. *By our
# records* is *supported*, *contradicted*, *mixed* or *undecided* only with the recipe *paper* and
# enough seeds. For any other recipe, the last column says how many comparisons lean the claim's
# way; that is no verdict.


# %% tags=["hide-input", "records", "nbval-ignore-output"]
def lean(k):
    """The records behind a verdict: recipes, and how many comparisons lean the claim's way."""
    got = measured[k]
    if not got["run"]:
        return ""
    recipes = ", ".join(dict.fromkeys(RECIPE[kind] for kind in got["kinds"] if kind != "clock"))
    words = f"{got['leaning']} of {got['run']} lean this way" + (
        f", {got['of'] - got['run']} not run" if got["of"] > got["run"] else ""
    )
    words += (
        f"; decided: {got['for']} for, {got['against']} against"
        if got["kinds"] == ["paper"]
        else ""
    )
    return f"*{recipes}*: {words}" if recipes else words


def holds(claim):
    if "plan" in claim:
        return "no numbers"
    got, of = scorecard.as_printed(claim, book.wide)
    return f"{got} of {of}"


by_group = [
    [
        g,
        f"{len(ks)}",
        f"{sum(printed[k] == 'in all comparisons' for k in ks)}"
        if "table" in claims[ks[0]] else "none",
        *map(str, counted(ks)),
    ]
    for g, ks in numbers.items()
    if ks and ks[0] in rules
]
display(
    show.table(
        ["group", "claims", "hold as printed", *DECIDED, "other recipe or machine", "not run"],
        by_group,
    ),
    show.table(
        ["no.", "claim", "as printed", "by our records", "records"],
        [[f"{k}", c["says"], holds(c), verdict[k], lean(k)] for k, c in rules.items()],
    ),
)

# %% tags=["hide-input", "records", "nbval-ignore-output"]
folded(
    "Claims in words, and what the book shows about them",
    show.table(
        ["no.", "claim", "what the book shows", "chapter"],
        [
            [f"{k}", c["says"], c["found"], report.chapter_link(c["chapter"])]
            for k, c in claims.items()
            if k not in rules
        ],
    ),
)

# %% [markdown]
# ## Results beyond the paper
#
# **Saliency or schedule?** The paper lowers the learning rate in steps. R-Mix's repository
# (`minhlong94/Random-Mixup`) reports a higher number for CutMix with one cycle of the learning
# rate; it is one checkpoint of other code. The plan `schedule.yml` trains the same methods with
# both.


# %% tags=["hide-input", "records", "nbval-ignore-output"]
def cost_of(name):
    runs = plans.read(paths.PLANS / f"{name}.yml", "paper")[1]
    return (
        f"Its {count(len(runs), 'run')} at the paper's size would take "
        + " or ".join(
            f"{duration(sum(estimate.hours(run, m) for run in runs))} on one {machine}"
            for machine, m in known.items()
        )
        + "."
    )


def gap_row(place, label, one, other, family):
    """place, row, both accuracies, their difference over equal seeds, what is decided"""
    gap = family.differences.get(label)
    spreads = [f"{summary.accuracy(rs)}" for rs in (one, other)]
    return [place, label, *spreads, f"{gap}" if gap else "", family.word(label) if gap else ""]


def compared(place, pairs):
    """Rows for label -> (records, records to subtract), decided as one family."""
    gaps = {
        label: statistics.difference(*pair, quantities.ACCURACY) for label, pair in pairs.items()
    }
    family = statistics.Family(place, {label: gap for label, gap in gaps.items() if gap})
    return [gap_row(place, label, *pair, family) for label, pair in pairs.items()]


schedules, leads = [], []
for (size, data), ours in report.of_plan(paths.PLANS / "schedule.yml", trained).items():
    run = {tuple(label.split(", ")): rs for label, rs in ours.items()}
    if any(schedule == "one_cycle" for _, schedule in run):
        asked = [
            m
            for m in plans.expected(paths.PLANS / "schedule.yml")["labels"]
            if any((m, s) in run for s in ("steps", "one_cycle"))
        ]
        schedules += compared(
            f"*{size}*, {data}",
            {m: (run.get((m, "one_cycle"), []), run.get((m, "steps"), [])) for m in asked},
        )
        leads += compared(
            f"*{size}*, {data}",
            {
                f"sage over {m}, {s}": (run.get(("sage", s), []), run.get((m, s), []))
                for s in ("steps", "one_cycle")
                for m in asked
                if m != "sage"
            },
        )
if schedules:
    display(
        show.table(["recipe", "method", "one_cycle", "steps", "difference", "decided"], schedules),
        show.table(
            ["recipe", "lead, schedule", "sage", "the other", "difference", "decided"], leads
        ),
    )
else:
    display(
        show.Markdown(
            f"Not run: no record of this plan has the schedule one_cycle. {cost_of('schedule')}"
        )
    )

# %% [markdown]
# **What is saliency worth?** The plan `controls.yml` replaces one component of SAGE at a time:
# uniform maps, another image's map, a random shift. The plan `readings.yml` has four readings of
# "without saliency-guided mixup", and the saliency of the class score.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
controls = []
asked = {
    (name, place): ours
    for name in ("controls", "readings")
    for place, ours in report.of_plan(paths.PLANS / f"{name}.yml", trained).items()
}
for (name, (size, data)), ours in asked.items():
    if any(r["method"]["name"] == "sage_controls" for rs in ours.values() for r in rs):
        labels = dict.fromkeys(label for label, _ in plans.table_rows(paths.PLANS / f"{name}.yml"))
        controls += compared(
            f"*{size}*, {data}",
            {
                label: (ours.get(label, []), ours.get("sage", []))
                for label in labels
                if label != "sage"
            },
        )
if controls:
    display(
        show.table(
            ["recipe", "instead of SAGE", "accuracy", "sage", "difference", "decided"], controls
        )
    )
else:
    display(show.Markdown("Not run: there is no record of a control or of a reading. Plan "
                          f"controls.yml: {cost_of('controls')} Plan readings.yml: "
                          f"{cost_of('readings')}"))

# %% [markdown]
# Accuracies are percent of the test images after the last epoch, mean ± standard deviation over
# seeds, with the number of seeds in brackets. In each table the rows of one plan, recipe and data
# set are decided together. These tables give no verdict on a claim.
#
# ## Discussion
#
# **What was easy.** Algorithm 1 fits in one short file, and the code settles the points that it
# leaves open. Appendix B states the optimiser and SAGE's settings for most networks. The CIFAR data
# are public, and the README of the code has the commands of the training runs.
#
# **What was hard.** The text describes $\eta$ as the share of the clean gradient, and only the
# opposite fits Table 7. The paper does not name its loss, and another loss needs another learning
# rate. There is no code for the two ablations, for the budgets of the attacks or for few-shot, and
# the text leaves choices open in all three. It does not say which epoch is reported. Puzzle Mix and
# Co-Mixup need combinatorial solvers, which are more code than SAGE itself.
#
# **What differs.** Some of our defaults follow the paper, some the code:

# %% tags=["hide-input"]
LARGEST = (
    "eta",
    "loss",
    "validation",
    "saliencymix-detector",
    "budgets",
    "few-shot-recipe",
    "figure-5a",
)
differ = {
    entry["key"]: entry
    for entry in yaml.safe_load((records.REPORTED.parent / "disagreements.yml").read_text())
}
parts = collections.Counter(entry["group"] for entry in differ.values())
display(
    show.Markdown(
        f"We list {count(len(differ), 'disagreement')}: "
        + "; ".join(f"{group}, {n}" for group, n in parts.items())
        + ". These have the largest consequences; "
        "[Paper and code](appendix_paper_and_code.ipynb) has them all."
    ),
    show.table(
        ["section there", "the paper", "the code", "default here"],
        [
            [f"[{e['title']}](appendix_paper_and_code.ipynb)", e["paper"], e["code"], e["here"]]
            for e in map(differ.get, LARGEST)
        ],
    ),
)

# %% [markdown]
# **What was not run, and why.** The table counts, for each of the paper's tables and data sets, the
# numbers with records of the recipe *paper* and enough seeds, and what the missing runs would take.
# Several tables share runs, so the times do not add up.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
NOTES = {
    2: "The paper gives no recipe, so runs of ours cannot confirm its numbers.",
    6: "The paper's hours are of its machine. Ours are times of a step, as multiples of vanilla's.",
    4: "Needs the networks of Table 1.",
    5: "Needs the networks of Table 1.",
}


def missing(table, data):
    """The runs of a table on a data set that have no record."""
    asked = [
        run
        for run in plans.read(paths.PLANS / f"{PLANS[table]}.yml", "paper")[1]
        if run.parameters.get("dataset", data) == data and of_the_paper(run)
    ]
    return [run for run in asked if run.name not in done]


rows = []
for table, data in dict.fromkeys((c.table, c.dataset) for c in book.cells if c.table != 6):
    here = [c for c in book.cells if (c.table, c.dataset) == (table, data)]
    full = [
        c
        for c in here
        if len(book.found.get(c.place, {}).get("paper", [])) >= statistics.LEAST_SEEDS
    ]
    todo = missing(table, data)
    rows.append(
        [
            f"Table {table}, {data}",
            f"{len(full)} of {len(here)}",
            f"{len(todo)}",
            *takes(todo),
            NOTES.get(table, ""),
        ]
    )
here = [c for c in book.cells if c.table == 6]
clocked = sum((c.model, c.method) in book.clock for c in here)
rows.append(
    [
        "Table 6",
        f"0 of {len(here)}; {clocked} timed on another machine",
        "",
        *["" for _ in known],
        NOTES[6],
    ]
)
left = len(every_run) - len(done)
why = "The reason is their computing time. " if left else ""
why += (
    "For Table 2 it is also the data, which cannot be downloaded."
    if missing(2, "mini_imagenet")
    else ""
)
display(
    show.Markdown(
        f"{left} of the {count(len(every_run), 'training run')} of the tables have no record. {why}"
    ),
    show.table(
        ["table, data set", "numbers with recipe *paper*", "runs missing", *known, "note"], rows
    ),
)

# %% [markdown]
# ## Communication with the authors
#
# There was none. All that we know of their work is the paper, its supplement and the published
# code.
