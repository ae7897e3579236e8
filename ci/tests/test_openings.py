"""The comment that opens each plan: its commands, times and the paper's numbers are current. And
what else ci/stale.py looks at: the README's count, the chapters' paragraphs.

What rests on our records may be older than they are: `ci/stale.py` says so, and no test fails.
"""

import re
import shutil

import nbformat
import pytest
import stale
import yaml
from made_records import make
from sweeps import PLAN

from sagelib import show
from sagelib.bench import records, scorecard, sweep
from sagelib.bench.paths import PLANS, TOP
from sagelib.bench.sweep import estimate, opening

BOOKS = opening.book()
every_plan = pytest.mark.parametrize("file", BOOKS, ids=lambda file: file.stem)


def comment(file):
    return re.match(r"(?:#.*\n)*", file.read_text())[0]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """The machines by the records that the committed openings name, and by no newer one."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "timings").mkdir()
    for name in set(re.findall(r"step_time-\w{8}", "".join(map(comment, BOOKS)))):
        shutil.copy(records.RESULTS / f"timings/{name}.json", folder / "timings")
    return estimate.machines(folder)


def hours(text):
    """The hours of a duration such as "36 h"; None for other text."""
    number, _, unit = text.partition(" ")
    return float(number) * opening.UNITS[unit] if unit in opening.UNITS else None


def outdated(old, new):
    """The lines of an opening that are out of date: times by more than 25 %, everything else but
    our own numbers by any change."""
    old, new = ([re.split(r" {2,}", line) for line in text.splitlines()] for text in (old, new))
    if len(old) != len(new):
        return ["their number"]
    found = []
    start = next(k for k, line in enumerate(new) if re.match("# Expected (?!time)", line[0]))
    for k, (ours, now) in enumerate(zip(old, new, strict=True)):
        if k > start:  # "#", the label and the paper's number; our numbers follow
            paper = 3 if "Table" in new[start][0] else 2
            same = now[-1].startswith("ours") or ours[:paper] == now[:paper]
        else:
            same = len(ours) == len(now) and all(map(close, ours, now))
        if not same:
            found.append("  ".join(now))
    return found


def close(old, new):
    if hours(old) and hours(new):
        return hours(old) == pytest.approx(hours(new), rel=0.25)
    return old == new


@every_plan
def test_an_opening_tells_the_time_and_the_papers_numbers_of_today(file, named):
    found = outdated(comment(file), opening.opening(file, machines=named))
    assert not found, f"{file.name}: `ci/book --save` rewrites it: {'; '.join(found)}"


@pytest.mark.parametrize("was, now, lines", [
    ("96.95", "96.94", 1), ("38 days", "58 days", 1), ("38 days", "36 days", 0),
    ("--size laptop", "--size lap", 1), (None, "91.00", 0)])
def test_a_time_or_a_number_of_the_paper_that_has_changed_is_found(was, now, lines, named):
    text = comment(PLANS / "table_1.yml")
    was = was or re.search(r"95.07 +(\S+)", text)[1]  # our own number may change
    assert was in text and len(outdated(text.replace(was, now), text)) == lines


@pytest.mark.parametrize("kind", ["none", "paper", "against", "fourth_seed"])
def test_more_records_make_no_opening_fail(kind, named, tmp_path):
    folder = make(kind, tmp_path / kind)
    for name in ("table_1", "table_2", "table_6"):
        file = PLANS / f"{name}.yml"
        new = opening.opening(file, folder, named)
        assert not outdated(comment(file), new) and not outdated(new, comment(file))
        assert "not run" in new or kind != "none"


def test_records_of_another_size_have_a_column_of_their_own(monkeypatch):
    every = [r for r in records.every(records.RESULTS) if r["parameters"]["width"] == 16]
    underfit = [r for r in every if r["parameters"]["epochs"] == 30]
    whole = dict(width=0, epochs=300, train_images=0, channels_last=False)
    paper = [{**r, "parameters": {**r["parameters"], **whole}, "final": {"accuracy": 90 + seed}}
             for r in underfit if r["method"]["name"] == "sage" and (seed := r["seed"]) < 2]
    monkeypatch.setattr(records, "of_notebook", lambda *asked: [*underfit, *paper])
    *_, head, vanilla, sage = opening.result(PLANS / "table_1.yml")
    assert re.split(r" {2,}", head.strip()) == ["the paper", "ours, paper", "ours, underfit"]
    assert vanilla.split()[:4] == ["vanilla", "95.07", "not", "run"]
    assert sage.split()[:5] == ["sage", "96.95", "90.50", "±", "0.71"]


@every_plan
def test_writing_an_opening_leaves_the_plan_as_it_was(file):
    text = file.read_text()
    plain = text.removeprefix(comment(file))
    assert yaml.safe_load(text) == yaml.safe_load(plain) and len(comment(file)) > 500
    new = opening.renewed(file, plain)
    assert opening.renewed(file, "# old\n#\n" + plain) == new and new.endswith(f"it.\n{plain}")
    assert max(map(len, new.removesuffix(plain).splitlines())) <= 100


def test_the_times_are_those_of_a_dry_run(capsys, tmp_path):
    assert sweep.show(PLANS / "table_1.yml", "laptop", tmp_path, (), tmp_path / "out") == 0
    said = capsys.readouterr().out
    total = dict(zip(re.search(r"hours on (.*)", said)[1].split(" | "),
                     re.search(r"(.*)  in all", said)[1].split(), strict=True))
    assert said.startswith("Expected test accuracy") and "95.07" in said and "96.95" in said
    row = next(line for line in opening.cost(PLANS / "table_1.yml", estimate.machines())
               if "laptop" in line)
    assert hours(re.split(r" {2,}", row.strip())[2]) == pytest.approx(
        float(total[opening.MACHINES[opening.CORE]]), rel=0.05)


def test_durations_have_two_digits_and_a_unit():
    said = {0.0005: "1.8 s", 0.1: "6 min", 1: "1 h", 36.24: "36 h", 54.8: "2.3 days",
            8000: "330 days", 36_700: "4.2 years"}
    assert {number: opening.duration(number) for number in said} == said


@pytest.mark.parametrize("expect, message", [
    ("table: 1, row: cifar9, labels: [sage]", "no row 'cifar9' .* rows: cifar10, preactresnet18; "),
    ("table: 7, row: 'cifar10, eta', labels: [eta 2]", "label 'eta 2'; its labels: eta 0.5, ")])
def test_an_expected_number_that_the_paper_lacks_is_one_clear_error(expect, message, plan):
    with pytest.raises(ValueError, match=message):
        opening.result(plan(PLAN.replace("cells:", f"expect: {{{expect}}}\ncells:")))


# the README's count and the chapters' paragraphs

def test_the_readme_claims_no_more_than_the_records_hold():
    """Its count may be older than the records (ci/stale.py says so), but never ahead of them."""
    text, now = (TOP / "README.md").read_text(), scorecard.progress(scorecard.book())
    claimed = int(stale.BLOCK.search(text)[0].split("has reproduced ")[1].split()[0])
    assert claimed <= now["reproduced"] and "{{ progress }}" in (TOP / "book/index.md").read_text()


def test_the_readmes_count_is_written_between_its_marks():
    text = "a\n<!-- progress -->\nold\nlines\n<!-- /progress -->\nb\n"
    new = stale.counted(text, "new \\1 text")
    assert new == "a\n<!-- progress -->\nnew \\1 text\n<!-- /progress -->\nb\n"
    with pytest.raises(ValueError, match="lacks the marks"):
        stale.counted("nothing", "new")


def test_paragraphs_that_no_longer_hold_are_listed(tmp_path):
    new, note = nbformat.v4, show.written_for(False, "Cost, below Table 6").text
    outputs = [new.new_output("display_data", {"text/markdown": note})]
    cells = [new.new_code_cell("1", outputs=outputs), new.new_code_cell("2"),
             new.new_markdown_cell("x")]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "13_cost.ipynb")
    assert [*stale.paragraphs(tmp_path)] == ["13_cost.ipynb: Cost, below Table 6"]
    assert show.written_for(True, "anything") is None
