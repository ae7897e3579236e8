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
# # Speed record
#
# How long does it take to reach 95 % and 96 % of CIFAR-10's test images, with SAGE and with plain
# training (`vanilla`)? Each method has its own table for each target, and each machine its own
# records: times of two machines do not compare. Every row comes from records of this book, with
# hardware, commit and seeds.

# %% tags=["hide-input", "parameters"]
results = ""  # folder of records; empty: the book's own

# %% tags=["hide-input", "setup"]
from IPython.display import display

from sagelib import show
from sagelib.bench import records, report, speed

HEADER = ["machine", "seconds to {:g} %", "accuracy at the end, %", "p", "recipe", "commit", "runs"]

# %% [markdown]
# ## What is counted
#
# The time of a run is the sum of its **training seconds** from the first batch to the end of the
# first epoch whose evaluation reaches the target. A record has these seconds for each epoch: from
# the moment its order is drawn until its last loss is on the host.
#
# - **Compilation does not count.** The first epoch compiles the network, so it counts as the median
#   of the other epochs.
# - **Evaluations should count, and do not yet.** Records do not have the seconds of evaluations,
#   checkpoints and plots between two epochs. The wall clock from the first batch to the end of the
#   evaluation is therefore longer than the time in the table.
# - **How often a run is evaluated matters.** With `test_every` 10, the target can only be reached
#   at the end of every tenth epoch.
#
# ## Rules
#
# An entry is the runs of one recipe, at one commit, on one machine, one for each seed.
#
# 1. It has at least three seeds. Each of them reaches the target, and the mean of their accuracies
#    after the last epoch does too: one lucky evaluation is not enough.
# 2. The commit is known, and no file differed from it.
# 3. Nothing else runs on the machine. Seeds trained side by side are refused. A record cannot show
#    another process, so look at the seconds of its epochs.
# 4. The data set is CIFAR-10 with all 10,000 test images. Everything else of the recipe is free:
#    the network, the schedule, the precision, the training images.
# 5. A new entry beats the record before it on the same machine with $p < 0.01$, by Welch's t-test
#    of the times (one-sided). The order is that in which entries were finished.
#
# The first evaluation that reaches the target is chosen on the test set. That makes a time a little
# too short, for every entry. No claim about accuracy rests on it.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
runs = records.every(results or records.RESULTS)


def evidence(record):
    """A link to a run's record."""
    file = records.path(record, "../book/results")
    return f'<a href="{file}">seed {record["seed"]}</a>'


def row(entry):
    """The cells of `HEADER`, and the reason where an entry is no record."""
    return [
        entry.machine,
        entry.seconds or "not all seeds",
        entry.accuracy,
        "first" if entry.p is None else f"{entry.p:.2g}",
        entry.recipe,
        f"`{entry.commit}`",
        "<br>".join(map(evidence, entry.records)),
        entry.refused,
    ]


def best(method):
    """The highest accuracy of a method's runs on CIFAR-10, in a sentence."""
    ours = [
        r
        for r in runs
        if r["dataset"]["name"] == speed.DATASET and r["method"]["name"] == method
    ]
    if not ours:
        return "There is no run of this method on CIFAR-10."
    top = max(ours, key=lambda r: r["best_on_test"]["accuracy"])
    return (
        f"The highest accuracy of {report.count(len(ours), 'run')} of this method on CIFAR-10 is "
        f"{top['best_on_test']['accuracy']:.2f} %, in a run of {top['recipe']['epochs']} epochs "
        f"on {speed.machine(top)}."
    )


# %% [markdown]
# ## The records

# %% tags=["hide-input", "records", "nbval-ignore-output"]
refused = []
for target in speed.TARGETS:
    for method in speed.METHODS:
        entries = speed.table(runs, method, target)
        rows = [row(entry)[:-1] for entry in entries if not entry.refused]
        refused += [[method, target, *row(entry)] for entry in entries if entry.refused]
        display(show.Markdown(f'<h3 id="{method}-{target:g}">{target:g} % with {method}</h3>'))
        header = [name.format(target) for name in HEADER]
        if rows:
            display(show.table(header, rows))
        else:
            display(show.Markdown(f"**No record yet.** {best(method)}"))

# %% [markdown]
# ## What did not count
#
# Runs that reach a target and are no record, with the reason.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
header = ["method", "target, %", *(name.format(0) for name in HEADER), "why not"]
header[3] = "seconds"
display(
    show.table(header, refused)
    if refused
    else show.Markdown("There is none: no further run reaches a target.")
)

# %% [markdown]
# ## How to enter
#
# Commit your changes first, so that the records name the commit. Run the same command for each of
# three seeds, one after another, on a machine with nothing else to do:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA \
#     -p method sage -p model preactresnet18 -p epochs 40 -p schedule one_cycle -p precision bf16 \
#     -p channels_last True -p results book/results -p seed 0
# ```
#
# On a GPU also set `compile_network`. These settings are an example and have not been run: which
# recipe is fastest is the question. Then build the book, and this page has your entry:
#
# ```
# ci/book --save
# ```
#
# Where a step spends its time on your GPU, and how far it is from our targets, is shown by `ci/gpu`
# in a few minutes. [The log of speed work](../book/log.md) lists every change and its outcome.
