"""Signatures: all public ones are annotated, a type checker agrees, and tests check them."""
import ast
import subprocess
import sys

import pytest
import torch
import typed
from jaxtyping import Float, TypeCheckError
from sweeps import BIN
from torch import Tensor

from sagelib.bench.paths import TOP
from sagelib.mask import mask

FILES = sorted((TOP / "sagelib").rglob("*.py"))


def public_functions(body):
    """(name, function) of the public functions and methods in a module's or a class's body."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and (
                not node.name.startswith("_") or node.name in ("__init__", "__call__")):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{name}", f) for name, f in public_functions(node.body))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(TOP / "sagelib").as_posix())
def test_every_public_signature_is_annotated(path):
    without = []
    for name, node in public_functions(ast.parse(path.read_text()).body):
        compiled = any("triton" in ast.unparse(d) for d in node.decorator_list)
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        if "." in name and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list):
            arguments = arguments[1:]
        arguments += [a for a in (node.args.vararg, node.args.kwarg) if a]
        if not compiled and (node.returns is None or any(a.annotation is None for a in arguments)):
            without.append(name)
    assert not without


def pyrefly(*files, cwd=TOP):
    return subprocess.run([BIN / "pyrefly", "check", *files],
                          capture_output=True, text=True, cwd=cwd)


def test_a_type_checker_finds_nothing_in_sagelib():
    found = pyrefly()
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(("line", "error"), [
    ("SAGE(10, u=0.6).method.u + 0.1", None),
    ("CutMix(10)(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))[1].shape", None),
    ("SAGE(10, lam=0.6)", "unexpected-keyword"), ("SAGE(10, norm='l3')", "bad-argument-type"),
    ("CutMix(10).method.fraction", "missing-attribute"),
    ("Mixup(10).bind('net')", "bad-argument-type")])
def test_a_users_editor_knows_the_types(tmp_path, line, error):
    file = tmp_path / "own.py"
    file.write_text(f"import torch\nfrom sagelib import SAGE, CutMix, Mixup\n\n{line}\n")
    (tmp_path / "pyrefly.toml").write_text(f"search-path = ['{TOP}']\n")
    found = pyrefly(file, cwd=tmp_path)
    assert (error is None and found.returncode == 0) or f"[{error}]" in found.stdout, found.stdout


def test_the_tests_check_annotations():
    assert hasattr(mask, "__wrapped__")


def double(x: Float[Tensor, "b c"]) -> Float[Tensor, "c b"]:
    if x.shape[0] == 1:
        raise ValueError("one row is refused")
    return 2 * x


def test_a_call_that_does_not_fit_is_an_error_unless_it_is_refused():
    call = typed.checked(double)
    assert torch.equal(call(torch.ones(3, 3)), torch.full((3, 3), 2.0))
    with pytest.raises(TypeCheckError, match="return value"):
        call(torch.ones(2, 3))
    with pytest.raises(TypeCheckError, match="parameters"):
        call(torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="one row is refused"):
        call(torch.ones(1, 3, 2))


def test_a_program_runs_without_the_packages_that_check_types():
    program = ("import sys; sys.modules.update(jaxtyping=None, beartype=None)\n"
               "import torch; from sagelib import CutMix\n"
               "print(CutMix(3)(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))[1].shape)")
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=TOP)
    assert said.stdout == "torch.Size([2, 3])\n", said.stderr
