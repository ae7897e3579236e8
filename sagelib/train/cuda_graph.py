"""A training step as a CUDA graph: recorded once, replayed with one launch, so that the GPU never
waits for Python.

The first steps run op by op, as they are. The last of these is watched: an operation that made the
host wait for the GPU would break the recording, and the steps then stay as they are, with a warning
that says why.
"""
import warnings

import torch

# steps before the recording: they compile, choose algorithms and fill the optimiser's state
WARM = 3


class CudaGraphStep:
    """step(index) -> loss, recorded for batches of `size` and replayed; other sizes run op by op.

    `generators` are those that the step draws from, `host` a random.Random that it must not use: a
    draw on the host would be the same in every replay.
    """

    def __init__(self, step, size, generators, host=None):
        self.step, self.size, self.generators, self.host = step, size, generators, host
        self.seen, self.graph, self.why = 0, None, None

    def __call__(self, index):
        if len(index) != self.size or self.why:
            return self.step(index)
        if self.graph is None and self.seen < WARM:
            self.seen += 1
            return self._watched(index) if self.seen == WARM else self.step(index)
        if self.graph is None and not self._record(index):
            return self.step(index)
        self.index.copy_(index)
        self.graph.replay()
        return self.loss

    def _watched(self, index):
        """A step that notes whether anything in it waited for the device, or drew on the host."""
        before = self.host and self.host.getstate()
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loss = self.step(index)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        waits = [w for w in caught if "called a synchronizing" in str(w.message)]
        if self.host and self.host.getstate() != before:
            self.fall_back_to_eager("it draws on the host what decides shapes")
        elif waits:
            first = f"{waits[0].filename}:{waits[0].lineno}"
            self.fall_back_to_eager(f"it waits for the device {len(waits)} times, first in {first}")
        return loss

    def _record(self, index):
        states = [g.get_state() for g in self.generators]
        self.index, graph = index.clone(), torch.cuda.CUDAGraph()
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph):
                self.loss = self.step(self.index)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)
            self.fall_back_to_eager(str(error).splitlines()[0])
            return False
        self.graph = graph
        return True

    def fall_back_to_eager(self, why):
        self.why = why
        warnings.warn(f"the training step runs op by op, not as a CUDA graph: {why}", stacklevel=2)
