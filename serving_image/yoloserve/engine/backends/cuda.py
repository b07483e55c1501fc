"""Runs a network on an NVIDIA GPU: pinned memory, a stream for each lane, graphs of usual sizes.

Two lanes are a double buffer: while one copies, the other computes. A graph is one launch instead
of hundreds, between four and five times as fast for a small network, and holds one size of batch:
so batches are filled up to the next power of two.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from yoloserve.engine.backends.base import Outputs, Tensors
from yoloserve.engine.backends.sizes import CompiledSizes, Size, rounded

Forward = Callable[[torch.Tensor], torch.Tensor]
"""(N, H, W, 3) uint8, BGR, to the head's output; both on the GPU, on the current stream."""

LANES = 2  # whatever the profile: a GPU that waits for a copy computes nothing
WARM_UP_RUNS = 3  # before a capture: libraries load kernels, and choose among them, as they go


class Lanes:
    """One network on the current GPU. Each lane is to be used by one thread at a time."""

    def __init__(self, make: Callable[[], Forward], max_batch: int, *, graphs: int) -> None:
        """Prepare the lanes; what `make` returns is for one lane, or for one graph of it.

        graphs: how many of each lane there is memory for.
        """
        self._make = make
        self._max_batch = max_batch
        self._runs = [make() for _ in range(LANES)]
        self._streams = [torch.cuda.Stream() for _ in range(LANES)]
        self._done = [torch.cuda.Event(blocking=True) for _ in range(LANES)]
        # Graphs of one lane run one after another, so they may share their memory. Libraries keep
        # a workspace for each stream they were captured on: lanes must not share that stream.
        self._pools = [torch.cuda.graph_pool_handle() for _ in range(LANES)]
        self._recorders = [torch.cuda.Stream() for _ in range(LANES)]
        self.graphs = CompiledSizes(self._capture, most=graphs)

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Copy in, run and copy out on the lane's stream; the thread sleeps until all is done."""
        count, *sides = tensors.shape
        batch = rounded(count, self._max_batch)
        graphs = self.graphs.find((batch, *sides[:2]))
        run = graphs[lane] if graphs else self._runs[lane]
        with torch.inference_mode(), torch.cuda.stream(self._streams[lane]):
            # Pinned memory comes from a cache, and goes back there once nobody holds it: the
            # answer is the caller's own. What fills a batch up is what was there before.
            staged = torch.empty((batch, *sides), dtype=torch.uint8, pin_memory=True)
            staged[:count].copy_(torch.from_numpy(np.ascontiguousarray(tensors)))
            output = run(staged.to("cuda", non_blocking=True))[:count].float()
            answer = torch.empty(output.shape, pin_memory=True)
            answer.copy_(output, non_blocking=True)
            self._done[lane].record()
            self._done[lane].synchronize()
        outputs: Outputs = answer.numpy()
        return outputs

    def _capture(self, shape: Size) -> list["_Graph"]:
        """Capture a graph for each lane. One at a time: `CompiledSizes` has a single worker."""
        return [
            _Graph(self._make(), shape, stream, pool)
            for stream, pool in zip(self._recorders, self._pools, strict=True)
        ]


class _Graph:
    """The launches of one batch, height and width, replayed as one."""

    def __init__(self, run: Forward, shape: Size, stream: torch.cuda.Stream, pool: Any) -> None:
        self._run = run  # owns memory that the graph works in
        with torch.inference_mode():
            self._input = torch.zeros((*shape, 3), dtype=torch.uint8, device="cuda")
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_RUNS):
                    run(self._input)
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # "thread_local": the lanes go on meanwhile, and may allocate memory.
            with torch.cuda.graph(
                self._graph, pool, stream=stream, capture_error_mode="thread_local"
            ):
                self._output = run(self._input)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Replay on the current stream; the output is overwritten by the next call."""
        self._input.copy_(pixels)
        self._graph.replay()
        return self._output
