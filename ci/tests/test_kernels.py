"""The Triton kernels become machine code for NVIDIA's A100 and H100; no GPU is needed for that.

What they compute is checked by the interpreter in test_equations.py and test_baselines.py, and on a
GPU in test_gpu.py.
"""
import warnings

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton comes with torch for NVIDIA GPUs; this "
                                              "torch has none")

POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32",
            torch.int64: "*i64", torch.int8: "*i8"}


class Recorded(Exception):
    """Stops a launch, with what was to be launched."""


@pytest.fixture
def launched(monkeypatch):
    """The kernel, its arguments' types and its constants, of a call that would launch one."""
    def catch(module, name, call):
        *before, name = name.split()  # kernels that the call launches first
        kernel = getattr(module, name)

        class Launch:
            def __getitem__(self, grid):
                def launch(*args, num_warps=4, **constants):
                    raise Recorded(args, constants, num_warps)
                return launch

        class Nothing:
            def __getitem__(self, grid):
                return lambda *args, **constants: None

        for other in before:
            monkeypatch.setattr(module, other, Nothing())
        monkeypatch.setattr(module, name, Launch())
        with pytest.raises(Recorded) as caught:
            call()
        args, constants, warps = caught.value.args
        kinds = [POINTERS[a.dtype] if isinstance(a, torch.Tensor) else "i32" for a in args]
        return kernel, dict(zip(kernel.arg_names, kinds, strict=False)), constants, warps
    return catch


def calls():
    from sagelib.search import triton as search_triton
    from sagelib.solvers import grid_labelling_triton, min_cut_triton
    some, eye = torch.zeros(39, 2, dtype=torch.long), torch.eye(23).double()[None]
    for size in (32, 84, 224):
        maps = torch.rand(2, size, size)
        yield (f"some shifts of {size}", search_triton, "_some",
               lambda maps=maps: search_triton.some(maps, maps, some))
        for name, kernels in (("all", "_all"), ("picked", "_all _pick")):
            yield (f"{name} shifts of {size}", search_triton, kernels,
                   lambda maps=maps: search_triton.table(maps, maps, some))
    for n in (2, 16):
        terms = torch.rand(1, 3, n, n), torch.rand(1, n - 1, n), torch.rand(1, n, n - 1)
        yield (f"cut {n}", min_cut_triton, "_kernel",
               lambda terms=terms: min_cut_triton.min_cut(*terms))
    cost = torch.rand(1, 4, 4, 23).double()
    one = torch.tensor([True])
    yield "labelling", grid_labelling_triton, "_kernel", lambda: grid_labelling_triton.minimise(
        cost, eye, 0.02, one)


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("name", [
    *(f"{part} shifts of {size}" for part in ("some", "all", "picked") for size in (32, 84, 224)),
    "cut 2", "cut 16", "labelling"])
def test_kernels_compile(name, chip, launched):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    module, attribute, call = next(found[1:] for found in calls() if found[0] == name)
    kernel, types, constants, warps = launched(module, attribute, call)
    source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = triton.compile(source, target=GPUTarget("cuda", chip, 32),
                              options={"num_warps": warps})
    # bytes a program may have on both
    assert len(code.asm["cubin"]) > 1000 and code.metadata.shared <= 100_000
