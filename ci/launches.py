"""How many kernels a compiled training step launches on an NVIDIA GPU, counted without one.

    python ci/launches.py [combo_kernels …]

A name that is given is an option of inductor to switch on.

torch.compile's own compiler (inductor) writes the code for an H100, from graphs of tensors without
values; nothing is run there. Printed are the kernels of each part of a vanilla and of a SAGE
step (PreActResNet18, batch 100, bf16, channels_last), the bytes that they read and write, and the
least time that follows: for each kernel its bytes over the memory's bandwidth, at least what a
launch in a CUDA graph costs, and the convolutions' operations over the speed of matrix products.
Such a time is a bound, not a measurement. The parts of inductor that this uses are private: another
version of torch may need other lines.
"""
from __future__ import annotations

import contextlib
import copy
import re
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest import mock

import torch
import torch._inductor.config
import torch._inductor.debug
import torch._inductor.decomposition
import triton
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.device_interface import CudaInterface
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton.backends.compiler import GPUTarget

from sagelib import catalog, models
from sagelib.bench import timing
from sagelib.data.batches import augmented
from sagelib.losses import bce, one_hot
from sagelib.methods import sage
from sagelib.rearrange import offsets
from sagelib.saliency import saliency

BANDWIDTH = 4.3e12    # bytes a second, an H200's memory
PRODUCTS = 0.55e15    # bf16 operations a second, of this network's convolutions (counted tiles)
LAUNCH = 1.5e-6       # seconds, the least a kernel takes in a CUDA graph
CHIP = {"multi_processor_count": 132, "regs_per_multiprocessor": 65536, "warp_size": 32,
        "max_threads_per_multi_processor": 2048, "max_threads_per_block": 1024}
MODE = FakeTensorMode(allow_non_fake_inputs=True)


@dataclass
class Kernels:
    """What a compiled graph launches: the bytes of each generated kernel; calls of libraries."""

    generated: list[int] = field(default_factory=list)
    library: list[str] = field(default_factory=list)

    def __add__(self, other: Kernels) -> Kernels:
        return Kernels(self.generated + other.generated, self.library + other.library)

    @property
    def launches(self) -> int:
        """Kernels; a convolution's backward has one for each of the gradients that it gives."""
        return len(self.generated) + len(self.library)

    @property
    def seconds(self) -> float:
        """The least time of the generated kernels."""
        return sum(max(LAUNCH, size / BANDWIDTH) for size in self.generated)


@contextlib.contextmanager
def h100():
    """A context in which inductor finds an H100; nothing can be run on it."""
    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    properties = DeviceProperties(type="cuda", index=0, cc=90, major=9, **CHIP)
    device = SimpleNamespace(major=9, minor=0, name="H100", total_memory=80 << 30,
                             gcnArchName="", **CHIP)
    active = triton.runtime.driver
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
                (torch.cuda, "get_device_properties", lambda d=None: device),
                (torch.cuda, "get_device_capability", lambda d=None: (9, 0)),
                (torch.cuda, "current_device", lambda: 0),
                (DeviceProperties, "create", classmethod(lambda cls, d: properties)),
                (CudaInterface, "get_compute_capability", staticmethod(lambda d=None: "90")),
                (torch._inductor.scheduler, "has_triton", lambda *d: True),
                (active, "_active", Driver())):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def kernels_of(function, *args):
    """The Kernels of a function's compiled graphs, forwards and backwards: a list.

    It is run once on the CPU, and its result's gradient is taken if it has one.
    """
    graphs = []

    def keep(graph, inputs):
        graphs.append((copy.deepcopy(graph), list(inputs)))
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, inference_compiler=keep,
                           partition_fn=min_cut_rematerialization_partition,
                           decompositions=select_decomp_table())
    out = torch.compile(function, backend=backend, dynamic=False)(*args)
    if isinstance(out, torch.Tensor) and out.requires_grad:
        out.float().square().mean().backward()
    return [_lowered(*_on_gpu(*each)) for each in graphs]


def _on_gpu(graph, inputs):
    """The same graph for tensors on a GPU, without values."""
    for node in graph.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = node.kwargs | {"device": torch.device("cuda", 0)}
    with MODE:
        inputs = [torch.empty_strided(z.shape, z.stride(), dtype=z.dtype, device="cuda")
                  if isinstance(z, torch.Tensor) else z for z in inputs]
        run = make_fx(lambda *given: torch.fx.Interpreter(graph).run(*given))
        return run(*inputs), inputs


def _lowered(graph, inputs):
    """What inductor's code for a graph launches."""
    with h100(), V.set_fake_mode(MODE), V.set_debug_handler(torch._inductor.debug.DebugContext()):
        lowering = GraphLowering(graph)
        with V.set_graph_handler(lowering):
            lowering.run(*inputs)
            code = lowering.codegen()[0].value.split("def call")[1]
            sizes = [node.get_read_write_buffers_sizes() for node in lowering.scheduler.nodes
                     if not node.is_extern()]
    several = len(re.findall(r"triton_\w+\.run\(", code)) - len(sizes)
    assert several >= 0, "a kernel is not counted"
    sizes += [0] * several  # of combined kernels only the sum of their bytes is known
    calls = re.findall(r"extern_kernels\.(\w+)|torch\.ops\.(?:aten|sagelib)\.(\w+)[\w.]*\((.*)\)",
                       code)
    found = []
    for plain, operation, given in calls:
        gradients = re.findall(r"\[(True|False), (True|False), (?:True|False)\]", given)
        several = sum(value == "True" for value in gradients[-1]) if gradients else 1
        found += [plain or operation] * several
    return Kernels(sizes, found)


def parts(batch=100, width=64, **options):
    """part -> (its Kernels, tensor operations without compilation).

    options: of inductor for the network, as a recipe's compile_options.
    """
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32, generator=g), one_hot(torch.arange(batch) % 10, 10)
    maps = torch.rand(batch, 1, 32, 32, generator=g)
    draws = torch.randperm(batch, generator=g), torch.rand((), generator=g), offsets(32, 32)[::100]
    windows = torch.zeros(batch, 3, 36, 36, dtype=torch.uint8).unfold(2, 32, 1).unfold(3, 32, 1)
    where = torch.randint(5, (2, batch), generator=g)
    turned, constants = torch.rand(batch, generator=g) < 0.5, torch.ones(2, 3, 1, 1)
    logits = torch.randn(batch, 10, generator=g).bfloat16()
    found = {}
    for name, function, args in (
            ("crop, flip, normalise", augmented,
             (windows, torch.arange(batch), *where, turned, *constants)),
            ("Equation 1", saliency, (x,)),
            ("Algorithm 1, lines 2 to 7", sage.smooth_and_mix, (x, y, maps, *draws))):
        operations = timing.launches(lambda f=function, a=args: f(*a))
        found[name] = sum(kernels_of(function, *args), Kernels()), operations
    logits.requires_grad_()
    found["loss and its gradient"] = (sum(kernels_of(bce, logits, y), Kernels()),
                                      timing.launches(lambda: bce(logits, y).backward()))
    net = catalog.load(models, "preactresnet18", classes=10, width=width)
    net.to(memory_format=torch.channels_last).train()
    images = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        with torch._inductor.config.patch(options):
            forwards, backwards = kernels_of(net, images)
        operations = timing.launches(lambda: net(images))
        both = timing.launches(lambda: net(images).float().square().mean().backward())
    found["network, forwards"] = forwards, operations
    found["network, backwards"] = backwards, both - operations
    return found


def main():
    found = parts(**dict.fromkeys(sys.argv[1:], True))
    flops = {"network, forwards": 0.111e12, "network, backwards": 0.222e12}  # at batch 100
    once = ("crop, flip, normalise",)
    network = ("loss and its gradient", "network, forwards", "network, backwards")
    steps = {"vanilla step": (*once, *network),
             "SAGE step": (*once, "Equation 1", "Algorithm 1, lines 2 to 7", *network, *network)}
    seconds = {name: kernels.seconds + LAUNCH * ("Algorithm" in name)  # the search
               + flops.get(name, 0) / PRODUCTS for name, (kernels, _) in found.items()}
    print(f"torch {torch.__version__}; without draws and the optimiser's two or three kernels")
    print(f"{'part':28}{'operations':>11}{'kernels':>9}{'libraries':>11}{'MB':>8}"
          f"{'at least, ms':>14}")
    for name, (kernels, operations) in found.items():
        print(f"{name:28}{operations:11}{len(kernels.generated):9}{len(kernels.library):11}"
              f"{sum(kernels.generated) / 1e6:8.1f}{1000 * seconds[name]:14.3f}")
    for step, names in steps.items():
        total = sum((found[name][0] for name in names), Kernels())
        print(f"{step:28}{sum(found[name][1] for name in names):11}{len(total.generated):9}"
              f"{len(total.library):11}{sum(total.generated) / 1e6:8.1f}"
              f"{1000 * sum(seconds[name] for name in names):14.3f}")


if __name__ == "__main__":
    sys.exit(main())
