"""Checks sagelib's annotations, shapes included, while tests and notebooks run.

    import typed; typed.install()   # before sagelib is imported

jaxtyping and beartype look at the arguments and the result of every annotated function. A call that
does not fit its annotations and then raises an error of its own is a call that the library refuses,
as it should; one that goes through is a TypeCheckError, since then the annotation is wrong.
"""
import ast
import functools
import importlib.machinery
import sys
import types

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import TypeCheckError, jaxtyped

PACKAGE = "sagelib"
# an int is a float, as for type checkers, and NumPy's numbers are numbers
numbers = FrozenDict({float: float | int | np.number, int: int | np.integer})
typechecker = beartype(conf=BeartypeConf(hint_overrides=numbers))


def install():
    """Check what is imported from sagelib from now on; RuntimeError if that is too late."""
    if any(name.split(".")[0] == PACKAGE for name in sys.modules):
        raise RuntimeError(f"{PACKAGE} is imported already: call typed.install() before that")
    sys.meta_path.insert(0, _Finder())


def checked(function):
    """The function, whose calls must fit its annotations unless it refuses them itself."""
    check = jaxtyped(typechecker=typechecker)(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        import torch
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        try:
            return check(*args, **kwargs)
        except TypeCheckError as error:
            if not getattr(error, "certain", False):
                function(*args, **kwargs)  # its own error, if it has one
                error.certain = True
            raise
    return call


class _Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] != PACKAGE:
            return None
        for finder in sys.meta_path:  # an editable installation has a finder of its own
            if not isinstance(finder, cls) and (spec := finder.find_spec(name, path, target)):
                if type(spec.loader) is importlib.machinery.SourceFileLoader:
                    spec.loader = _Loader(spec.loader.name, spec.loader.path)
                return spec
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        for node in ast.parse(self.get_data(self.path)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                code = compile(ast.Module(node.body, []), self.path, "exec")
                exec(code, vars(module))
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) == module.__name__:
                if isinstance(value, type):
                    _check_class(value)
                elif _annotated(value):
                    setattr(module, name, checked(value))


def _check_class(cls):
    for name, value in list(vars(cls).items()):
        if isinstance(value, (staticmethod, classmethod)) and _annotated(value.__func__):
            setattr(cls, name, type(value)(checked(value.__func__)))
        elif isinstance(value, property) and _annotated(value.fget):
            setattr(cls, name, value.getter(checked(value.fget)))
        elif _annotated(value) and not (name == "__init__" and "__dataclass_fields__" in vars(cls)):
            if value.__annotations__.get("return") == "Self":  # beartype knows it in a class alone
                value.__annotations__["return"] = cls
            setattr(cls, name, checked(value))


def _annotated(value):
    # what contextmanager makes is annotated as the generator that it is made of
    context = hasattr(value, "__wrapped__") and "Iterator" in str(
        getattr(value, "__annotations__", {}).get("return"))
    return isinstance(value, types.FunctionType) and value.__annotations__ and not context
