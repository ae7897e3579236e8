"""New results never break the book: tables, scorecard and the chapters' cells on records, against
made sets of them."""

import ast
import contextlib

import matplotlib.pyplot as plt
import nbformat
import pytest
from experiments import notebook_shell
from made_records import KINDS, make

from sagelib import show
from sagelib.bench import plans, records, report, schema, scorecard
from sagelib.bench.paths import PLANS, TOP

NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
CHAPTERS = [p for p in NOTEBOOKS
            if any("records" in c.metadata.get("tags", []) for c in nbformat.read(p, 4).cells)]
READERS = ("records.every(", "records.timings(", "records.RESULTS", "scorecard.book(")


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    return request.param, make(request.param, tmp_path_factory.mktemp("made") / "results")


def tagged(path, *tags):
    """The code cells of a notebook that have one of the tags."""
    return [c for c in nbformat.read(path, 4).cells
            if c.cell_type == "code" and {*tags} & {*c.metadata.get("tags", [])}]


def names(source, context):
    return {n.id for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_cells_on_records_bear_every_set(path, made, tmp_path, capsys):
    """Parameters, set-up and the cells tagged "records", with `results` set, in one process: no
    error."""
    kind, folder = made
    with notebook_shell() as shell, contextlib.chdir(tmp_path):
        for cell in tagged(path, "parameters", "setup", "records"):
            shell.run_cell(cell.source).raise_error()
            if "parameters" in cell.metadata.get("tags", []):
                assert shell.user_ns["results"] == ""
                shell.push({"results": str(folder)})
    plt.close("all")
    stale = kind == "today" and show.STALE in capsys.readouterr().out
    assert not stale, "a paragraph no longer agrees with the book's own records: rewrite it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_depends_on_records_is_tagged_and_not_compared(path):
    """A cell that reads records, or a name made in such a cell, is tagged, so that CI does not
    compare its output."""
    made = set()
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        tags = {*cell.metadata.get("tags", [])}
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        own = names(source, ast.Store) | {n.name for n in ast.walk(ast.parse(source))
                                          if isinstance(n, ast.FunctionDef)}
        reads = any(word in source for word in READERS) and "TemporaryDirectory" not in source
        depends = reads or bool(names(source, ast.Load) & made - own)
        assert "records" in tags or not depends, f"reads records, is not tagged so: {source[:80]}"
        if "records" in tags:
            assert "nbval-ignore-output" in tags, source[:80]
            made |= own
        else:
            made -= own


def test_the_scorecard_bears_every_set(made):
    kind, folder = made
    book = scorecard.book(folder)
    count, words = scorecard.progress(book), scorecard.verdicts(book)
    assert sum(count.values()) - count["all"] == count["all"] == 131 == len(words)
    if kind == "none":
        assert count["none"] == 131 and set(words.values()) == {"not run"}
    # the printed numbers are what was measured, but for Table 6, and Table 2's recipe is unknown
    if kind == "paper":
        assert count["reproduced"] == 131 - 16 - 7 and "not distinguishable" in words.values()
        assert set(words.values()) == {"not distinguishable", "another machine", "another recipe"}
    if kind == "against":
        assert {"higher", "lower"} < set(words.values())


def test_the_report_has_what_was_run_beyond_the_paper(tmp_path, capsys):
    """Its tables of schedules and controls, by recipe, and no verdict of it on a claim."""
    before, folder = scorecard.book(), make("planned", tmp_path / "results")
    path = TOP / "notebooks/report.ipynb"
    every = records.every(folder)
    runs = report.of_plan(PLANS / "schedule.yml", every)["laptop", "cifar10"]
    for label, name in (("sage, one_cycle", "laptop, one_cycle"), ("sage, steps", "laptop")):
        assert [r["seed"] for r in runs[label]] == [0, 1, 2]
        assert {plans.recipe_name(r) for r in runs[label]} == {name}
    runs = report.of_plan(PLANS / "controls.yml", every)["laptop", "cifar10"]
    assert {"vanilla", "sage", "uniform maps"} < runs.keys() and len(runs["uniform maps"]) == 3
    with notebook_shell() as shell, contextlib.chdir(tmp_path):
        for cell in tagged(path, "parameters", "setup", "records"):
            shell.run_cell(cell.source).raise_error()
            if "parameters" in cell.metadata.get("tags", []):
                shell.push({"results": str(folder)})
        verdicts = shell.user_ns["verdict"]
    shown = capsys.readouterr().out
    assert "| *laptop*, cifar10 | sage over cutmix, one_cycle |" in shown
    assert "| *laptop*, cifar10 | uniform maps |" in shown and "Not run" not in shown
    assert not {"supported", "contradicted", "mixed", "undecided"} & {*verdicts.values()}
    assert scorecard.progress(scorecard.book(folder)) == scorecard.progress(before)


def test_every_run_of_a_table_is_recorded_in_a_made_set(tmp_path):
    folder = make("paper", tmp_path / "paper")
    for table in (1, 2, 3, 4, 7):
        kind = "few_shot" if table == 2 else "record"
        _, runs = plans.read(PLANS / f"table_{table}.yml", "paper")
        assert len(report.recorded(runs, records.every(folder, kind))) == len(runs)


def test_hours_of_seeds_trained_side_by_side_count_once():
    seconds = [dict(training=7200.0, epoch=1.0, together=2)] * 2 + [dict(training=3600.0, epoch=1)]
    assert report.machine_hours({"seconds": s} for s in seconds) == 3


def test_a_table_leaves_out_columns_without_a_value():
    found = show.table(["name", "gap", "value"], [["a", "", 2.0], ["b", "", 3]], "C").text
    assert found == "*C*\n\n| name | value |\n| --- | --: |\n| a | 2.00 |\n| b | 3 |"
    assert show.table(["name", "gap"], [["a", ""], ["b", 0]]).text.endswith("| b | 0 |")


@pytest.mark.parametrize("kind, word", [
    ("paper", "supported"), ("against", "contradicted"), ("today", "shortened recipe"),
    ("none", "not run")])
def test_only_numbers_at_the_papers_recipe_support_or_contradict_its_claims(kind, word, tmp_path):
    rule = dict(says="SAGE above vanilla", table=1, rows=".", better=["sage"], than=["vanilla"])
    book = scorecard.book(make(kind, tmp_path / kind))
    assert scorecard.word(scorecard.as_measured(rule, book)) == word


def test_a_made_set_says_which_images_are_right(tmp_path):
    for record in records.every(make("paper", tmp_path / "paper")):
        assert schema.correct_images(record) is not None
