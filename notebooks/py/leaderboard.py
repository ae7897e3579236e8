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
# # Leaderboard
#
# Which method is best, and how sure are we? Each board on this page compares the methods that we
# trained with one recipe, on one data set, with one network. Every method runs with the paper's
# settings. Numbers of two boards do not compare.
#
# A leaderboard that numbers its rows from 1 to $n$ claims that all neighbours differ. Yet another
# seed may swap them. Here a difference counts only if a paired test decides it. We compare two
# methods seed by seed, include the error of the finite test set, and decide all pairs of a board
# together, so that the chance of any false decision on a board is at most 5 %
# ([the rule and its derivation](11_image_classification.ipynb)). Fewer than three seeds decide
# nothing.
#
# - **Rank** is 1 plus the number of methods that are decided to be better. Methods that the tests
#   do not tell apart can share a rank.
# - **Places** are all places that the tests leave open: from the rank to the number of methods
#   minus those that are decided to be worse. They are confidence intervals for the true ranks, at
#   95 % for all methods of a board together.
# - **Groups** compare pair by pair. Two methods with a letter in common are *not* told apart; two
#   methods without one are. In the figure below each table a bar joins the methods of a group, with
#   a dot on each, as in a critical-difference diagram.
#
# A method with a low mean can have a good rank. This happens when its seeds vary so much that
# no test tells it from the best. Then its places reach far down as well, and more seeds would help.

# %% tags=["hide-input", "parameters"]
convention = "pixels, clamped"  # of the budgets of perturbed images: see "Out of distribution"
results = ""  # folder of records; empty: the book's own

# %% tags=["hide-input", "setup"]
import base64

from IPython.display import display

from sagelib import show
from sagelib.bench import leaderboard, plans, records, timing

HEADER = [
    "rank",
    "method",
    "accuracy, %",
    "to the first",
    "places",
    "groups",
    "perturbed, %",
    "training, %",
    "step",
    "runs",
]


def link(text, address, **attributes):
    """An HTML link."""
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<a href="{address}"{more}>{text}</a>'


def download(name, kind, text):
    """A link to a text as a file. When the site is built, it becomes a file beside the page."""
    data = base64.b64encode(text.encode()).decode()
    return link(name, f"data:{kind};base64,{data}", download=name)


# %% tags=["hide-input", "records", "nbval-ignore-output"]
folder = results or records.RESULTS
boards = leaderboard.boards(
    records.every(folder),
    records.every(folder, "few_shot"),
    records.timings(folder, "step_time"),
    convention,
)


def title(board):
    """Data set, network and recipe of a board, in short."""
    short = board.size or plans.recipe_name(board.entries[0].records[0])
    return f"{board.dataset}, {board.model}, recipe {short}"


def evidence(record):
    """Links to a run's record and to the executed notebooks that are there."""
    file, here = records.path(record, "../book/results"), records.path(record, folder)
    found = [link("record", file)]
    for suffix, what in (("", "notebook"), ("-robustness", "perturbed")):
        name = f"{file.stem}{suffix}.ipynb"
        if here.with_name(name).exists():
            found.append(link(what, file.with_name(name)))
    return f"seed {record['seed']}: {', '.join(found)}"


def to_the_first(gap):
    """A mean difference with its two standard errors, as text."""
    errors = [leaderboard.seed_error(gap), gap.test_error]
    return f"{gap.mean:+.2f} ({', '.join('?' if e is None else f'{e:.2f}' for e in errors)})"


def board_row(board, entry):
    """The cells of `HEADER` for a method; "" where there is no number."""
    step = ""
    if entry.cost:
        step = link(f"{entry.cost:.2f}", records.path(board.timed, "../book/results"))
    curves = f"all seeds: {link('curves', f'#curves-{board.name}')}"
    return [
        entry.rank or "",
        entry.method,
        entry.value,
        to_the_first(entry.gap) if entry.gap else "",
        f"{entry.places[0]} to {entry.places[1]}" if entry.places else "",
        entry.letters if board.ranking.decides else "",
        entry.perturbed or "",
        entry.train or "",
        step,
        "<br>".join([*map(evidence, entry.records), curves]),
    ]


def verdict(board):
    """What a board decides and on what grounds, in sentences."""
    pairs, signs = board.ranking.family, board.ranking.family.signs.values()
    apart, of = sum(map(abs, signs)), len(board.entries) * (len(board.entries) - 1) // 2
    if not board.can_decide:
        said = (
            "**Nothing can be decided:** no two methods have three seeds in common, "
            "with differences that vary. "
            "The table is in the order of the means, and there are no ranks."
        )
    elif not apart:
        said = (
            f"**No two methods are told apart** (of {of} pairs). All share the first rank, and the "
            "table is in the order of the means."
        )
    else:
        said = f"**{apart} of {of} pairs are told apart.** {pairs.rule}"
    left = [e.method for e in board.entries if board.ranking.decides and not e.places]
    said += (
        f" Without a rank, since nothing can be decided about them: {', '.join(left)}."
        if left
        else ""
    )
    papers = board.recipe == "paper"
    recipe = "the paper’s" if papers else board.recipe.replace("few_shot", "few-shot")
    said += f" Recipe: {recipe}."
    said += (
        ""
        if papers
        else " It is not the paper’s, so nothing here supports or contradicts the paper."
    )
    timed = board.timed and f" Steps timed on: {timing.setup(board.timed)}."
    return said + (timed or "")


# %% [markdown]
# ## All boards

# %% tags=["hide-input", "records", "nbval-ignore-output"]
overview = [
    [
        link(title(b), f"#{b.name}"),
        len(b.entries),
        sum(len(e.records) for e in b.entries),
        sum(map(abs, b.ranking.family.signs.values())) if b.can_decide else "cannot decide",
        ", ".join(e.method for e in b.entries if e.rank == 1),
    ]
    for b in boards
]
files = [
    download("leaderboard.csv", "text/csv", leaderboard.as_csv(leaderboard.method_rows(boards))),
    download("leaderboard_runs.csv", "text/csv", leaderboard.as_csv(leaderboard.run_rows(boards))),
    download("leaderboard.json", "application/json", leaderboard.as_json(boards)),
]
if boards:
    display(
        show.table(["board", "methods", "runs", "pairs told apart", "rank 1"], overview),
        show.Markdown(
            f"Downloads: {files[0]} (a row for each board and method), {files[1]} "
            "(a row for each run), "
            f"{files[2]} (both)."
        ),
    )
else:
    display(show.Markdown("No recipe has been run with two methods yet: **not run**."))

# %% [markdown]
# ## The boards
#
# *Accuracy* is the mean ± standard deviation over seeds, with their number in brackets. *To the
# first* is the mean difference to the method with the highest mean, over the seeds that both have,
# in points. The brackets hold its two standard errors, by seeds and by test set ("?" with a single
# seed). *Perturbed* is the mean accuracy under the paper's three perturbations, with budgets and
# clamping as in the published code. *Training* is the accuracy on the training images, without
# mixing. *Step* is the time of a training step over vanilla's, from one record that timed all of
# them in turns. A column without a number is left out. *Runs* leads to each run's record, to its
# executed notebooks, and to the learning curves of the board.
#
# The field above a table filters its rows, and the names of the columns are buttons that sort them.
# *Link to this view* is an address that opens the page with this filter and this order.

# %% tags=["hide-input", "scorecard", "records", "nbval-ignore-output"] mystnb={"image": {"alt": "Two figures for each board. First its methods in the order of their means, a dot for each seed and a line at the mean, with bars at the right that join methods which are not told apart. Then the learning curves of all runs."}}
for board in boards:
    display(
        show.Markdown(f'<h3 id="{board.name}">{title(board)}</h3>\n\n{verdict(board)}'),
        show.table(HEADER, [board_row(board, entry) for entry in board.entries]),
    )
    show.groups(
        {e.method: [board.quantity.value(r) for r in e.records] for e in board.entries},
        board.groups if board.ranking.decides else {},
        "accuracy, %",
        title(board),
    )
    display(
        show.Markdown(
            f'<p id="curves-{board.name}">Learning curves of this board, a line for each run:</p>'
        )
    )
    show.curves(
        {e.method: [r["curve"] for r in e.records] for e in board.entries},
        *(
            ["val_accuracy", "validation accuracy, %"]
            if board.recipe.startswith("few_shot")
            else []
        ),
    )
None if boards else show.Markdown("Not run.")
