"""The book's own rules: pairs in sync, one parameters cell, small outputs, a complete map, imports
one way."""
import ast
import graphlib
import inspect
import os
import re
import subprocess
import tomllib
from types import SimpleNamespace

import book_site as site
import follow_calls
import jupytext
import library_pages as pages
import nbformat
import pytest
import tinycss2
import yaml

from sagelib import SAGE
from sagelib.bench.paths import TOP

NOTEBOOKS = sorted(p for p in (TOP / "notebooks").rglob("*.ipynb")
                   if ".ipynb_checkpoints" not in p.parts)
TWINS = sorted((TOP / "notebooks/py").rglob("*.py"))
IMAGES = ("image/png", "image/jpeg")
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def twin(path):
    return (TOP / "notebooks/py" / path.relative_to(TOP / "notebooks")).with_suffix(".py")


def content(notebook):
    return [(c.cell_type, c.source, sorted(c.metadata.get("tags", [])), c.metadata.get("mystnb"))
            for c in notebook.cells]


def test_every_notebook_has_its_script_and_its_place_in_the_table_of_contents():
    toc = yaml.safe_load((TOP / "book/_toc.yml").read_text())
    listed = {c["file"] for part in toc["parts"] for c in part["chapters"]}
    assert all(list(TOP.glob(f"{page}.*")) for page in listed)
    assert {str(p.relative_to(TOP).with_suffix("")) for p in NOTEBOOKS} == {
        page for page in listed if page.startswith("notebooks/")} - {"notebooks/index"}
    assert [twin(p) for p in NOTEBOOKS] == TWINS


@notebooks
def test_pairs_are_in_sync(path):
    assert content(nbformat.read(path, 4)) == content(jupytext.read(twin(path)))


@notebooks
def test_one_parameters_cell_of_plain_literals_and_no_banned_tag(path):
    cells = nbformat.read(path, 4).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in ast.parse(tagged[0].source).body:
        ast.literal_eval(line.value)
    assert not any("raises-exception" in c.metadata.get("tags", []) for c in cells)


@notebooks
def test_committed_outputs_are_there_and_small(path):
    assert path.stat().st_size < 600_000
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count, f"not executed: {cell.source[:60]}"
            for out in cell.outputs:
                assert out.output_type != "error" and out.get("name") != "stderr"
                for kind in IMAGES:
                    size = len(out.get("data", {}).get(kind, "")) * 3 / 4
                    assert size < 60_000, f"image of {size // 1000} KB: {cell.source[:60]}"


@notebooks
def test_every_image_has_an_alternative_text(path):
    for cell in nbformat.read(path, 4).cells:
        if any(not out.get("data", {}).keys().isdisjoint(IMAGES)
               for out in cell.get("outputs", [])):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"no alternative text: {cell.source[:60]}"


@pytest.mark.parametrize("path", sorted((TOP / "notebooks").glob("[0-9]*.ipynb")),
                         ids=lambda p: p.stem)
def test_a_chapter_has_its_shape(path):
    cells = nbformat.read(path, 4).cells
    code = [c.source for c in cells if c.cell_type == "code"]
    lessons = [c for c in cells
               if c.cell_type == "code" and "hide-cell" not in c.metadata.get("tags", [])]
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert 9 <= len(lessons) <= 20 and words >= 800
    assert any("assert" in c for c in code) and any("## Exercises" in c.source for c in cells)
    assert max(len(c.splitlines()) for c in code) <= 30


@pytest.mark.parametrize("chapter", ["02_saliency", "03_mask", "04_rearrangement", "05_algorithm_1",
                                     "09_out_of_distribution", "12_ablations"])
def test_the_chapters_with_figures_take_a_data_set_and_its_place(chapter):
    """What they say of shapes is asserted of shapes alone, so that they run on other images."""
    cells = nbformat.read(TOP / f"notebooks/{chapter}.ipynb", 4).cells
    given, = (c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(given).body}
    assert (values["dataset"], values["root"]) == ("shapes", None)
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    assert "teaching.small_sets(dataset, root, train_images)" in code
    assert "test.masks" not in code  # None for most data sets: teaching.object_masks


def public_files():
    """The files of sagelib that a user may import, as methods/sage.py."""
    files = [p.relative_to(TOP / "sagelib") for p in (TOP / "sagelib").rglob("*.py")]
    return [str(p) for p in files if not any(part.startswith("_") for part in p.parts)]


def test_the_map_names_functions_and_options_that_are_there():
    text = (TOP / "notebooks/index.md").read_text()
    named = re.findall(r"`([a-z0-9_/]+\.py)`: ((?:`[A-Za-z_.]+`(?:, )?)+)", text)
    assert len(named) > 10
    for file, things in named:
        tree = ast.parse((TOP / "sagelib" / file).read_text())
        there = {getattr(node, "name", None) or node.target.id for node in ast.walk(tree)
                 if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AnnAssign))}
        for thing in re.findall(r"`([^`]+)`", things):
            assert set(thing.split(".")) <= there, f"{file} has no {thing}"


def test_the_map_and_the_tree_agree():
    text = (TOP / "notebooks/index.md").read_text()
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert all((TOP / "notebooks" / link).exists() for link in links)
    assert {p.name for p in (TOP / "notebooks").glob("*.ipynb")} <= links
    named = re.findall(r"`([a-z0-9_/]+\.py)`", text)
    assert all((TOP / "sagelib" / name).exists() for name in named)
    for thing in [f"Equation {k}" for k in range(1, 5)] + [f"Figure {k}" for k in range(1, 9)] + [
            "Algorithm 1", "Table 1", "Table 2", "Table 3", "Tables 4 and 5", "Table 6", "Table 7"]:
        assert re.search(rf"^\| {thing} \|", text, re.M), thing


def test_what_the_site_does_to_style_sheets_pages_and_docstrings():
    text = """.a{x:1} .gone{x:2} .a.gone,.a .b{x:3} @media print{.gone{x:4} .b{x:5}}
              @keyframes k{from{x:6}}
              .no:not(.gone){x:7} [src$=".png"]{x:8} p{x:9} .begin-this{x:10}"""
    rules = tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True)
    kept = site.used(rules, lambda name: name in {"a", "b"} or name.startswith(("begin-",)))
    assert "gone{" not in kept.replace(":not(.gone){", "") and "x:4" not in kept
    assert "x:2" not in kept
    for k in (1, 3, 5, 6, 7, 8, 9, 10):
        assert f"x:{k}" in kept, kept
    page = ('<script src="a/fontawesome.js?x"></script><img src="a.png"><img loading="eager" '
            'src="b.png"><script src="../searchindex.js"></script><script src="book.js"></script>'
            '<script src="../_static/explorer.js?v=1"></script>')
    light = site.lighter(page, searches=False)
    assert light == ('<img loading="lazy" src="a.png"><img loading="eager" src="b.png">'
                     '<script src="book.js"></script>')
    assert site.lighter(light, searches=False) == light
    assert "searchindex" in site.lighter(page, searches=True)
    assert "explorer.js" in site.lighter(page + '<div class="sage-explorer"></div>', False)
    code = '<div class="highlight"><pre><span class="k">def</span>{}</pre></div>'
    sheet = """html[data-theme="light"] .highlight { background: #fff; color: #080808 }
        html[data-theme="light"] .highlight .k { color: #6730C5 }
        html[data-theme="light"] .highlight .n { color: #080808 }
        html[data-theme="light"] .highlight .p { color: #080808; font-weight: bold }
        html[data-theme="light"] .highlight .w { color: #080808 }
        html[data-theme="dark"] .highlight { background: #000; color: #F8F8F2 }
        html[data-theme="dark"] .highlight .w { color: #ABE338 }"""
    assert site.uncoloured_tokens(sheet) == ["n"]
    plain = site.lighter(code.format(' <span class="n">x</span>'), False, ["n"])
    assert plain == code.format(" x")
    word = '<span class="pre">Tensor</span>'
    sign = '<span class="p"><span class="pre">:</span></span>'
    signature = f'<dt class="sig py"><em>x{sign}<span class="w"> </span>{word}</em></dt>{word}'
    assert site.lighter(signature, False) == f'<dt class="sig py"><em>x: Tensor</em></dt>{word}'
    lines = ["One `x` and `y`s: a * b_c.", "", "- a", "  more", "- b", "Then:", "", "    code(1)",
             "    more", "", "End."]
    site.as_written(None, "function", "f", None, None, lines)
    assert lines == [r"One ``x`` and ``y``\ s: a \* b\_c.", "", "- a", "  more", "- b", "", "Then:",
                     "", ".. code-block:: python", "", "    code(1)", "    more", "", "End."]


def test_downloads_that_a_notebook_carries_become_files(tmp_path):
    page = '<p><a href="data:text/csv;base64,YSxiCg==" download="rows.csv">rows</a> <a href="x">'
    found = site.with_files(page, tmp_path)
    assert found == '<p><a href="rows.csv" download="rows.csv">rows</a> <a href="x">'
    assert (tmp_path / "rows.csv").read_text() == "a,b\n" and len([*tmp_path.iterdir()]) == 1


def test_parameters_in_a_docstring_are_a_list_on_the_site():
    lines = ["Blur of s.", "", "Sigma: as here. sigma: pixels, of", "two axes; norm, radius: as",
             "in it.", "", "    sigma: code", ""]
    listed = site.parameters_listed(lines, ["s", "sigma", "norm", "radius"])
    assert listed == ["Blur of s.", "", "Sigma: as here.", "", "- `sigma`: pixels, of two axes.",
                      "- `norm`, `radius`: as in it.", "", "    sigma: code", "", ""]


@pytest.mark.parametrize("origin, url", [
    ("https://github.com/someone/sage-book.git", "https://github.com/someone/sage-book"),
    ("git@github.com:someone/sage-book.git", "https://github.com/someone/sage-book"),
    ("ssh://git@github.com/someone/sage-book/", "https://github.com/someone/sage-book"),
    ("/somewhere/else", None), ("", None)])
def test_launch_links_lead_to_the_projects_own_place_or_are_not_there(origin, url, tmp_path):
    (tmp_path / "_config.yml").write_text((TOP / "book/_config.yml").read_text())
    subprocess.run(["bash", "-c", f". {TOP}/ci/environment.sh; launch_links _config.yml"],
                   cwd=tmp_path, check=True, env={"PATH": os.environ["PATH"], "REPOSITORY": origin,
                                                  "GIT_CEILING_DIRECTORIES": str(tmp_path)})
    options = yaml.safe_load(
        (tmp_path / "_config.yml").read_text())["sphinx"]["config"]["html_theme_options"]
    assert options.get("repository_url") == url
    assert ("launch_buttons" in options) == (url is not None)
    assert options["use_download_button"]


def test_the_reference_has_a_section_and_a_line_for_every_public_file():
    text = pages.reference(TOP / "sagelib", (TOP / "notebooks/index.md").read_text())
    parts = re.split(r"^## `sagelib/(.*)`$", text, flags=re.M)[1:]
    found = []
    for folder, part in zip(parts[::2], parts[1::2], strict=True):
        sections = re.findall(
            r"^\((.+)\)=\n\n### `(.+)`\n\n```{eval-rst}\n\.\. automodule:: (\S+)$", part, re.M)
        rows = re.findall(r"^\| \[`(.+?)`\]\((\S+)\) \| .{20,} \|$", part, re.M)
        assert rows == [(name, anchor) for anchor, name, _ in sections]
        for _, name, module in sections:
            assert module == "sagelib." + (folder + name).removesuffix(".py").replace("/", ".")
        found += [folder + name for _, name, _ in sections]
    assert sorted(f for f in found if "/_" not in f"/{f}") == sorted(public_files())
    first = [f for f in found if "/" not in f][:5]
    assert first == ["mixer.py", "method.py", "saliency.py", "mask.py", "rearrange.py"]


def test_pages_are_written_from_whatever_files_there_are(tmp_path):
    """A tree of its own: order, sections, classes of private files, and openings as MyST."""
    for file, text in {
            "__init__.py": '"""Top."""\n__all__ = ["Late", "Root", "make"]\n',
            "b.py": '"""B | `x|y`,\n*two* lines.\n\nMore."""',
            "a.py": '"""A, https://arxiv.org/abs/1.2, and so on. As follows:\n\n- a list"""',
            "_hidden.py": '"""H."""', "y.py": '"""Y."""\nclass Root: pass',
            "z.py": '"""Z."""\nclass Late: pass\ndef make(): pass',
            "new/__init__.py": '"""New things."""',
            "new/deep/one.py": '"""One."""\nfrom ._base import Base, helper',
            "new/deep/_base.py": ('"""What all are."""\nclass Base: pass\nclass Other: pass\n'
                                  'def helper(): pass'),
            "new/deep/__init__.py": '"""Deep things."""'
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    text = pages.reference(tmp_path, "| Equation 1 | `b.py`: `b` |")
    assert re.findall(r"^#.*$", text, re.M) == [
        "## `sagelib/`", "### `z.py`", "### `y.py`", "### `b.py`", "### `a.py`",
        "## `sagelib/new/deep/`", "### `one.py`", "### `_base.py`"]
    assert "Deep things." in text and "sagelib.new.deep._base.Base\n" in text
    assert "Other" not in text
    assert r"| [`b.py`](api-b) | B \| `x\|y`, \*two\* lines. |" in text
    assert pages.rest(tmp_path, "`b.py` `y.py` `z.py` `new/deep/one.py`").splitlines()[2:] == [
        "| [`a.py`](api-a) | A, [arXiv:1.2](https://arxiv.org/abs/1.2), and so on. |"]
    app = SimpleNamespace(srcdir=TOP)
    with pytest.raises(ValueError, match=f"book/api.md needs the line {pages.MARK} once"):
        pages.write(app, "book/api", ["# The library"])
    source = [f"A\n{pages.MARK}\nB"]
    pages.write(app, "notebooks/index", source)
    assert source[0].startswith("A\n| file | what it is |") and source[0].endswith("|\nB")


ALLOWED = {  # who may import whom inside sagelib; a name is the file's or the folder's
    "modes": set(), "unwrap": set(), "pixels": set(), "machine": set(), "files": set(),
    "catalog": set(), "show": set(), "models": set(), "compiled": set(),
    "saliency": set(), "mask": {"saliency"}, "rearrange": {"saliency", "search"},
    "search": {"machine"},
    "losses": {"modes", "saliency"}, "stored_grad": {"saliency", "unwrap"},
    "method": {"compiled", "losses", "modes", "saliency", "stored_grad"},
    "solvers": {"machine", "saliency"},
    "attention": {"saliency", "unwrap"},
    "methods": {"attention", "losses", "mask", "method", "modes", "pixels", "rearrange",
                "saliency", "solvers", "stored_grad", "unwrap"},
    "mixer": {"losses", "method", "methods", "unwrap"}, "__init__": {"method", "mixer"},
    "data": {"compiled", "files", "losses", "pixels"}, "datasets": {"data", "machine"},
    "evaluate": {"data", "modes", "pixels", "saliency", "stored_grad"},
    "train": {"evaluate", "files"},
    "demo": {"catalog", "files", "losses", "methods", "models", "rearrange", "saliency", "show",
             "teaching"},
    "__main__": {"demo"},
    "teaching": {"catalog", "data", "datasets", "losses", "methods", "models", "saliency", "train"},
    "bench": {"catalog", "data", "datasets", "evaluate", "files", "machine", "methods", "models",
              "modes", "train"},
}
BENCH = {  # and inside bench
    "__init__": set(), "paths": set(), "schema": set(), "provenance": set(),
    "paper_recipe": set(), "statistics": set(), "weights": set(),
    "few_shot_setups": set(), "parameters": {"few_shot_setups", "paper_recipe"},
    "timing": {"paper_recipe"},
    "records": {"paper_recipe", "paths", "provenance", "schema"},
    "small_run": {"records", "weights"}, "attack_distances": {"quantities", "records", "schema"},
    "quantities": {"records", "schema", "statistics"},
    "plans": {"few_shot_setups", "parameters", "paths", "timing"},
    "summary": {"few_shot_setups", "quantities", "statistics"},
    "report": {"plans", "schema"},
    "speed": {"records", "schema", "statistics", "summary", "timing"},
    "scorecard": {"plans", "quantities", "records", "report", "statistics", "summary", "timing"},
    "leaderboard": {"plans", "quantities", "records", "statistics", "summary", "timing"},
    "sweep": {"paper_recipe", "parameters", "paths", "plans", "records", "scorecard", "summary",
              "timing"},
}


@pytest.mark.parametrize("allowed", [ALLOWED, BENCH], ids=["sagelib", "bench"])
def test_what_is_allowed_goes_round_in_no_circle(allowed):
    graphlib.TopologicalSorter(allowed).prepare()


@pytest.mark.parametrize("path", sorted((TOP / "sagelib").rglob("*.py")),
                         ids=lambda p: str(p.relative_to(TOP)))
def test_imports_run_one_way_and_the_core_needs_torch_alone(path):
    parts = path.relative_to(TOP / "sagelib").with_suffix("").parts
    heavy = {"torchvision", "cv2", "ray", "PIL", "tqdm", "jsonschema", "skimage", "sklearn"}
    tree = ast.parse(path.read_text())
    annotations = [n for n in tree.body if isinstance(n, ast.If)
                   and ast.unparse(n.test) == "TYPE_CHECKING"]  # never imported when it runs
    tree.body = [n for n in tree.body if n not in annotations]
    assert parts[0] == "bench" or not any("bench" in ast.unparse(n) for n in annotations)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = parts[:len(parts) - node.level]
            module = (*package, *(node.module or "").split(".")) if node.module else package
            for name in ([a.name for a in node.names] if module in {(), ("bench",)} else [""]):
                there = (*module, name) if name else module
                assert there[0] in ALLOWED[parts[0]] | {parts[0]}, f"{path} imports {there}"
                if parts[0] == there[0] == "bench":
                    assert there[1] in BENCH[parts[1]] | {parts[1]}, f"{path} imports {there}"
    top = {(n.module or "") if isinstance(n, ast.ImportFrom) else n.names[0].name
           for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))}
    assert not {t.split(".")[0] for t in top} & heavy


ONCE = {  # pattern -> the files of sagelib and ci that may have it, and second copies that it finds
    r"os\.(replace|rename|link)\(|\.(replace|rename)\([^,()]+\)": (
        # the latter: whole folders, where no sagelib is yet
        {"sagelib/files.py", "ci/environment.py"},
        ["os.replace(part, path)", "part.rename(target)", "Path(part).replace(target)"],
    ),
    r"\.training = |\.eval\(\)": (
        # the others: a module around a function, and a network that is returned for its maps
        {"sagelib/modes.py", "sagelib/evaluate/autoattack.py", "sagelib/teaching.py"},
        ["net.eval()", "m.training = False"],
    ),
    r"2 \* \(n - 1\)|% *period": ({"sagelib/saliency.py"},
                                  ["i % (2 * (n - 1))", "at = torch.arange(n) % period"]),
    r"math\.exp\(-|/ \(2 \* sigma\*\*2\)": (
        # the latter: along a line of any direction
        {"sagelib/saliency.py", "sagelib/evaluate/corruptions/blur.py"},
        ["weights = math.exp(-0.5 * (k / sigma) ** 2)", "(-at.square() / (2 * sigma**2)).exp()"],
    ),
    r"cpu_count|PoolExecutor\(\)|Pool\(\)": (
        {"sagelib/machine.py"}, ["os.cpu_count()", "ThreadPoolExecutor()", "Pool()"]),
    # the rows of Tables 3 and 7 are in their plans
    r"\"without (rearrangement|saliency-guided mixup)\": ": (
        set(), ['"without rearrangement": ("sage", {"rearranged": False})']),
    r"\b_BatchNorm\b": ({"sagelib/modes.py"},
                        ["isinstance(m, torch.nn.modules.batchnorm._BatchNorm)"]),
    r"\b_orig_mod\b|_FabricModule": ({"sagelib/unwrap.py"},
                                     ['getattr(net, "_orig_mod", net)', "net._orig_mod"]),
    # machine.triton_kernels alone
    r"(?m)from \.\S* import \w*triton\b|from \.\S*triton import|^ +import triton": (
        set(),
        ["from . import min_cut_triton", "from .triton import search", "try:\n    import triton"]),
}


@pytest.mark.parametrize("pattern", ONCE)
def test_a_helper_has_no_second_copy(pattern):
    places, copies = ONCE[pattern]
    files = [*(TOP / "sagelib").rglob("*.py"), *(TOP / "ci").glob("*.py")]
    assert {str(p.relative_to(TOP)) for p in files if re.search(pattern, p.read_text())} == places
    assert all(re.search(pattern, copy) for copy in copies)


@pytest.mark.parametrize("path", sorted(p for p in (TOP / "sagelib/methods").glob("[a-z]*.py")),
                         ids=lambda p: p.stem)
def test_a_method_opens_with_its_source_and_where_it_differs(path):
    """A link to the paper and what differs from it, or that it is our own."""
    opening = ast.get_docstring(ast.parse(path.read_text()))
    if not re.search(r"\bour own\b", opening, re.I):
        linked = path.stem == "vanilla" or re.search(r"https://\S+", opening)
        assert linked, "link to its source, or say: our own"
        differs = re.search("differ|difference|As in", opening, re.I)
        assert differs, "say how it differs from its source"


@pytest.mark.parametrize("path", sorted((TOP / "sagelib").rglob("*.py")),
                         ids=lambda p: str(p.relative_to(TOP)))
def test_public_things_have_docstrings_and_files_are_short(path):
    tree = ast.parse(path.read_text())
    opening, lines = ast.get_docstring(tree), len(path.read_text().splitlines())
    assert opening and (lines <= 400 or "one file" in opening), "why is it so long?"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 40:
            text = ast.get_source_segment(path.read_text(), node)
            assert "one function" in text, f"{node.name}: why is it so long?"


def test_environment_and_project_agree():
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((TOP / "environment.yml").read_text())
    extras = project["optional-dependencies"]
    assert environment["dependencies"][0] == f"python{project['requires-python']}"
    listed = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert sorted(listed) == sorted(
        [*project["dependencies"], *extras["book"], *extras["test"], "-e ."])


def test_the_chapters_table_of_options_has_the_true_defaults():
    rows = re.findall(r"^# \| (`.*?) \| (.*?) \|", (TOP / "notebooks/py/14_use_it.py").read_text(),
                      re.M)
    told = {name.strip("`"): value for names, values in rows for name, value in
            zip(names.split(", "), values.split(", "), strict=False)}
    true = {name: str(p.default) for name, p in inspect.signature(SAGE).parameters.items()}
    named = {name for name in told if name in true}
    assert named == {"prob", "reuse", "u", "sigma", "fraction", "loss", "label_smoothing",
                     "per_image", "bn", "seed"}
    for name in named:
        try:
            assert float(told[name]) == float(true[name])
        except ValueError:
            assert told[name].strip('"') == true[name]


def test_a_call_is_followed_through_few_files():
    """What a reader opens for a batch by CutMix, a loss by SAGE, and a step of the book's loop."""
    opened = [{file for file in follow_calls.followed(call) if file not in follow_calls.EQUATIONS}
              for call in follow_calls.calls().values()]
    assert opened[0] == {"mixer.py", "method.py", "methods/cutmix.py"}
    assert opened[1] == {"mixer.py", "method.py", "methods/sage.py", "stored_grad.py", "unwrap.py"}
    assert opened[2] == {"train/step.py", "data/batches.py", "data/dataset.py", "method.py",
                         "methods/sage.py", "stored_grad.py", "unwrap.py"}


def test_the_workflow_runs_the_two_commands_and_publishes_what_the_second_one_builds():
    jobs = yaml.safe_load((TOP / ".github/workflows/book.yml").read_text())["jobs"]
    steps = {name: job["steps"] for name, job in jobs.items()}
    commands = [step["run"] for name in ("test", "site") for step in steps[name] if "run" in step]
    assert commands == ["ci/test", "ci/book"] and jobs["site"]["needs"] == "test"
    assert all(os.access(TOP / command, os.X_OK) for command in commands)
    upload, = (s for s in steps["site"] if "upload-pages" in s.get("uses", ""))
    assert f'"the book is at $PWD/{upload["with"]["path"]}/index.html"' in (
        TOP / "ci/book").read_text()


def test_the_top_holds_what_every_checkout_needs_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("a copy without its history: git lists nothing")
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} == {
        ".ci", ".github", ".gitignore", "LICENSE", "README.md", "book", "ci", "environment.yml",
        "jupytext.toml", "notebooks", "pyproject.toml", "sagelib"}
