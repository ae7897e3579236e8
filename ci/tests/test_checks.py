"""The checks themselves: five kinds of check that cannot fail are found in the syntax and
refused."""
import ast

import pytest

from sagelib.bench.paths import TOP

FILES = sorted([*(TOP / "ci/tests").glob("*.py"), *(TOP / "notebooks/py").rglob("*.py")])
CLOCKS = {"perf_counter", "monotonic", "process_time", "time", "interleaved"}


def called(node):
    """Name of the function that a call calls, the last part of it; "" for anything else."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def root(node):
    """The name that an expression such as a.b[c].d begins with, or None."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", None)


def used_assertions(tree, lines):
    """Calls of assert_close and the like whose value is used: it is None, and the rest is never
    looked at."""
    statements = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n).startswith("assert_")
            and id(n) not in statements]


def idle_statements(tree, lines):
    """Statements that are a value and no call: a comparison without assert, a tuple of calls.

    Allowed are docstrings, what a notebook's cell ends with and so displays, and what is to raise.
    """
    raising = [n.body[-1] for n in ast.walk(tree) if isinstance(n, ast.With)
               and any(called(item.context_expr) in ("raises", "warns") for item in n.items)]
    shown = [n for n in tree.body if "".join(lines[n.end_lineno:]).strip() == ""
             or next(text for text in lines[n.end_lineno:] if text.strip()).startswith("# %%")]
    cells = any(t.startswith("# %%") for t in lines)
    allowed = {id(n) for n in [*raising, *(shown if cells else [])]}
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    allowed |= {id(n.body[0]) for n in ast.walk(tree)
                if isinstance(n, scopes) and ast.get_docstring(n)}
    return [n for n in ast.walk(tree) if isinstance(n, ast.Expr) and id(n) not in allowed
            and not isinstance(n.value, (ast.Call, ast.Yield, ast.YieldFrom, ast.Await))]


def operands(test):
    """The parts that `and`, `or` and `not` join."""
    if isinstance(test, ast.BoolOp):
        return [deep for part in test.values for deep in operands(part)]
    return operands(test.operand) if isinstance(test, ast.UnaryOp) else [test]


def constant_asserts(tree, lines):
    """Asserts of what is always true or always false: a filled tuple, a string, a generator, a
    value compared with itself, a length of at least 0."""
    displays = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.GeneratorExp, ast.Lambda,
                ast.JoinedStr)
    found = []
    for n in ast.walk(tree):
        for part in operands(n.test) if isinstance(n, ast.Assert) else ():
            pure = not any(isinstance(inner, ast.Call) for inner in ast.walk(part))
            same = (isinstance(part, ast.Compare) and pure
                    and ast.dump(part.left) == ast.dump(part.comparators[0]))
            if isinstance(part, displays) or same:
                found.append(n)
    return found


def equality(test):
    """Whether a test only compares for equality, as of a record with what was read again."""
    kinds = {type(op) for n in ast.walk(test) if isinstance(n, ast.Compare) for op in n.ops}
    return bool(kinds) and kinds <= {ast.Eq, ast.NotEq}


def clock_asserts(tree, lines):
    """Asserts on measured time: it depends on the machine. Names are followed through assignments
    in a function; one that puts its own clock in place of `timing._now` is free to."""
    inner = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    found = []
    for scope in [*inner, ast.Module([n for n in tree.body if n not in inner], [])]:
        nodes, timed = list(ast.walk(scope)), set()
        if any(isinstance(n, ast.Constant) and n.value == "_now" for n in nodes):
            continue

        def reads(node, timed=timed):
            return any(
                called(n) in CLOCKS or getattr(n, "id", None) in timed for n in ast.walk(node))

        for _ in nodes:
            before = len(timed)
            for n in nodes:
                if isinstance(n, (ast.Assign, ast.AugAssign, ast.NamedExpr)) and reads(n.value):
                    places = n.targets if isinstance(n, ast.Assign) else [n.target]
                    timed |= {root(p) for place in places for p in getattr(place, "elts", [place])}
                elif isinstance(n, ast.For) and reads(n.iter):
                    timed |= {p.id for p in ast.walk(n.target) if isinstance(p, ast.Name)}
                elif (isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)
                        and isinstance(n.value.func, ast.Attribute)
                        and any(map(reads, n.value.args))):
                    timed.add(root(n.value.func))
            if len(timed) == before:
                break
        found += [n for n in nodes
                  if isinstance(n, ast.Assert) and reads(n.test) and not equality(n.test)]
    return found


def loose_bounds(tree, lines):
    """Asserts of a bound that anything meets: a duration or a loss above 0, an accuracy from 0 to
    100, a length or a share of a mask inside its range, a "fall" by less than 5 %, which untrained
    weights make too."""
    shares = {root(t) for n in ast.walk(tree) if isinstance(n, ast.Assign)
              and ".float().mean()" in ast.unparse(n.value) for t in n.targets}
    found = []
    for n in ast.walk(tree):
        for c in ast.walk(n.test) if isinstance(n, ast.Assert) else ():
            if not isinstance(c, ast.Compare):
                continue
            sides = [c.left, *c.comparators]
            for small, op, large in zip(sides, c.ops, sides[1:], strict=False):
                if isinstance(op, (ast.Gt, ast.GtE)):
                    small, large = large, small
                elif not isinstance(op, (ast.Lt, ast.LtE)):
                    continue
                low, high = ast.unparse(small), ast.unparse(large)
                strict = isinstance(op, (ast.Lt, ast.Gt))
                product = isinstance(large, ast.BinOp) and isinstance(large.op, ast.Mult)
                factor = large.left if product else None
                if ((low == "0" and any(word in high for word in ("seconds", "loss", "accuracy")))
                        or (low == "0" and high.startswith("len(") and not strict)
                        or (high == "100" and "accuracy" in low)
                        or (high == "1" and root(small) in shares)
                        or (isinstance(factor, ast.Constant) and 0.95 <= factor.value < 1)):
                    found.append(n)
    return found


KINDS = {
    used_assertions: ([
        "assert_close(a, b) and torch.equal(a, b)", "x = [assert_close(p, q) for p, q in pairs]",
        "assert np.testing.assert_allclose(a, b) is None",
    ], ["assert_close(a, b)", "for p, q in pairs:\n    assert_close(p, q)"]),
    idle_statements: ([
        "a == b", "f(a), g(b)", "def t():\n    a.all() and b.all()", "[f(x) for x in y]",
        "# %%\na == b\nx = 1",
    ], [
        '"""A docstring."""', "f(a)", "with pytest.raises(E):\n    a.b",
        "# %%\nx = 1\nx == 1\n\n# %%\ny = 2",
    ]),
    constant_asserts: ([
        'assert (a == b, "why")', "assert a or True", 'assert not "text"', "assert x and [a, b]",
        "assert (p == q for p, q in pairs)", "assert a == b and c.d[0] <= c.d[0]",
    ], [
        "assert a == b", "assert (a == b).all()", "assert draw(1) == draw(1)", "assert a == (1, 2)",
    ]),
    clock_asserts: ([
        "begin = time.perf_counter()\nspent = time.perf_counter() - begin\nassert spent < 3",
        "s = {}\nfor k in y:\n    s.get(k).append(time.monotonic())\nassert all(t for t in s)",
        "def t():\n    t = timing.interleaved(y)\n    for a in t.values():\n        assert a > 2",
    ], [
        "while time.monotonic() < end:\n    f()\nassert done()",
        "r = {'seconds': time.monotonic()}\nassert records.read(records.write(r)) == r",
        "def test(m):\n    m.set(timing, '_now', fake)\n    assert timing.interleaved(b)[0] > 3"
    ]),
    loose_bounds: ([
        "assert row['seconds']['median'] > 0", "assert 0 < curve[0]['train_loss']",
        "assert net.accuracy <= 100", "lost = (a == 0).float().mean().item()\nassert lost < 1",
        "assert last < 0.97 * first", "assert len(x) >= 0",
    ], [
        "assert low <= row['seconds']['median']", "assert accuracy > 30", "assert len(x) > 0",
        "assert last < 0.8 * first", "lost = (a == 0).float().mean().item()\nassert lost < 0.4",
    ]),
}


TEXTS = [(kind, text, bad) for kind, (wrong, fine) in KINDS.items()
         for texts, bad in ((wrong, True), (fine, False)) for text in texts]


@pytest.mark.parametrize("kind, text, bad", TEXTS, ids=[f"{k.__name__}: {t}" for k, t, _ in TEXTS])
def test_each_kind_is_found_and_nothing_else(kind, text, bad):
    assert bool(kind(ast.parse(text), text.splitlines())) == bad


def test_oracles_use_nothing_of_the_library():
    text = (TOP / "ci/tests/oracles.py").read_text()
    imported = {alias.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import)
                for alias in n.names} | {n.module for n in ast.walk(ast.parse(text))
                                         if isinstance(n, ast.ImportFrom)}
    assert imported == {"itertools", "math", "numpy", "torch", "torch.nn.functional", "scipy"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(TOP)))
def test_no_check_is_of_a_kind_that_cannot_fail(path):
    text = path.read_text()
    tree, lines = ast.parse(text), text.splitlines()
    wrong = [f"{path.relative_to(TOP)}:{n.lineno}: {kind.__name__}: {ast.unparse(n)}"
             for kind in KINDS for n in kind(tree, lines)]
    assert not wrong, "\n".join(wrong)
