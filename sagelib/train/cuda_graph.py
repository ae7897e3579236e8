"""A training step as a CUDA graph: recorded once, replayed with one launch per step.

The GPU then never waits for Python. The first steps run op by op. The last of these is watched: an
operation that makes the host wait for the GPU would break the recording. Then all steps run op by
op, and a warning says why.
"""
from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Step = Callable[[Int[Tensor, " b"]], Float[Tensor, ""]]  # indices of a batch -> its loss

# steps before the recording: they compile, choose algorithms and fill the optimiser's state
WARM = 3


class CudaGraphStep:
    """step(index) -> loss, recorded for batches of `size` and replayed; other sizes run op by op.

    `generators`: those that the step draws from. `cpu_rng`: a random.Random, by default that
    of the module `random`; the step must not draw from it, since each replay would repeat the draw.
    """

    def __init__(self, step: Step, size: int, generators: Sequence[torch.Generator],
                 cpu_rng: random.Random | None = None) -> None:
        self.step, self.size, self.generators, self.cpu_rng = step, size, generators, cpu_rng
        self.seen = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.why: str | None = None  # why it runs op by op

    def __call__(self, index: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        if len(index) != self.size or self.why:
            return self.step(index)
        if self.graph is None and self.seen < WARM:
            self.seen += 1
            return self._watched(index) if self.seen == WARM else self.step(index)
        if self.graph is None:
            self.graph = self._record(index)
        if self.graph is None:
            return self.step(index)
        self.index.copy_(index)
        self.graph.replay()
        return self.loss

    def _watched(self, index):
        """A step that notes whether anything in it waited for the device, or drew on the host."""
        cpu_rng = self.cpu_rng or random
        before = cpu_rng.getstate()
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loss = self.step(index)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        waits = [w for w in caught if "called a synchronizing" in str(w.message)]
        if cpu_rng.getstate() != before:
            self.fall_back_to_eager("it draws on the host what decides shapes")
        elif waits:
            first = f"{waits[0].filename}:{waits[0].lineno}"
            self.fall_back_to_eager(f"it waits for the device {len(waits)} times, first in {first}")
        return loss

    def _record(self, index):
        """The recorded graph, or None where the step cannot be recorded."""
        states = [g.get_state() for g in self.generators]
        self.index, graph = index.clone(), torch.cuda.CUDAGraph()
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph):
                self.loss = self.step(self.index)
        except (RuntimeError, TypeError) as error:
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)
            self.fall_back_to_eager(str(error).splitlines()[0])
            return None
        return graph

    def fall_back_to_eager(self, why: str) -> None:
        """Run op by op from now on, with a warning that says why."""
        self.why = why
        warnings.warn(f"the training step runs op by op, not as a CUDA graph: {why}", stacklevel=2)
