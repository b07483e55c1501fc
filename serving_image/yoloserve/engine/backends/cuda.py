"""Runs a network on an NVIDIA GPU: pinned memory, a stream for each lane, graphs of usual sizes.

The surest places are picked there, as a part of the graph; the rest of the output stays.

Two lanes are a double buffer: while one copies, the other computes. A graph is one launch instead
of hundreds, between four and five times as fast for a small network, and holds one size of batch:
so batches are filled up to the next power of two.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Head
from yoloserve.detections.surest import Surest
from yoloserve.engine.backends.base import Outputs
from yoloserve.engine.backends.picking import pick
from yoloserve.engine.backends.sizes import CompiledSizes, Size, rounded
from yoloserve.images.letterbox import Image

Forward = Callable[[torch.Tensor], torch.Tensor]
"""(N, H, W, 3) uint8, BGR, to the head's output; both on the GPU, on the current stream."""
Picking = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""The same, and what was picked of it."""

DEVICE = "cuda"
LANES = 2  # whatever the profile: a GPU that waits for a copy computes nothing
WARM_UP_RUNS = 3  # before a capture: libraries load kernels, and choose among them, as they go


class Lanes:
    """One network on the current GPU. Each lane is to be used by one thread at a time."""

    def __init__(
        self,
        make: Callable[[], Forward],
        max_batch: int,
        *,
        graphs: int,
        usual: tuple[int, int],
        fixed: int | None = None,
    ) -> None:
        """Prepare the lanes; what `make` returns is for one lane, or for one graph of it.

        graphs: how many of each lane there is memory for. usual: height and width of what will
        come. fixed: the only size of batch there is.
        """
        self._make = make
        self._max_batch = max_batch
        self._usual = usual
        self._fixed = fixed
        self._head: Head | None = None  # not known yet, or nothing to pick from
        self._runs = [make() for _ in range(LANES)]
        self._streams = [torch.cuda.Stream() for _ in range(LANES)]
        self._done = [torch.cuda.Event(blocking=True) for _ in range(LANES)]
        # Graphs of one lane run one after another, so they may share their memory. Libraries keep
        # a workspace for each stream they were captured on: lanes must not share that stream.
        self._pools = [torch.cuda.graph_pool_handle() for _ in range(LANES)]
        self._recorders = [torch.cuda.Stream() for _ in range(LANES)]
        self.graphs = CompiledSizes(self._capture, most=graphs)

    def suit(self, head: Head) -> None:
        """Pick from outputs of this head from now on, and capture the usual size first."""
        self._head = None if head is Head.END_TO_END else head
        self.graphs.prepare((self._batch_for(self._max_batch), *self._usual))

    def infer(self, lane: int, tensors: Sequence[Image]) -> Outputs:
        """Copy in, run and copy out on the lane's stream; the thread sleeps until all is done."""
        with self._on(lane):
            output, _ = self._ran(lane, tensors)
            return self._fetched(lane, output)

    def surest(self, lane: int, tensors: Sequence[Image]) -> list[Surest] | None:
        """Do the same, but copy out only the surest places of each image."""
        if self._head is None:
            return None
        with self._on(lane):
            output, picked = self._ran(lane, tensors)
            assert picked is not None
            rows = self._fetched(lane, picked)
        return [
            Surest(each, partial(self._whole, lane, output[number]))
            for number, each in enumerate(rows)
        ]

    def _whole(self, lane: int, output: torch.Tensor) -> NDArray[np.float32]:
        with self._on(lane):
            return self._fetched(lane, output)

    @contextmanager
    def _on(self, lane: int) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.stream(self._streams[lane]):
            yield

    def _ran(self, lane: int, tensors: Sequence[Image]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Start a batch, without what it is filled up with; it goes on while this returns."""
        count, sides = len(tensors), tensors[0].shape
        batch = self._batch_for(count)
        # Pinned memory comes from a cache, and goes back there once nobody holds it. What fills a
        # batch up is what was there before.
        staged = torch.empty((batch, *sides), dtype=torch.uint8, pin_memory=True)
        for place, tensor in zip(staged, tensors, strict=False):
            place.copy_(torch.from_numpy(np.ascontiguousarray(tensor)))
        pixels = staged.to(DEVICE, non_blocking=True)
        graphs = self.graphs.find((batch, *sides[:2]))
        if graphs:
            output, picked = graphs[lane](pixels)
        else:
            output, picked = picking(self._runs[lane], self._head)(pixels)
        return output[:count], None if picked is None else picked[:count]

    def _fetched(self, lane: int, numbers: torch.Tensor) -> NDArray[np.float32]:
        """Copy numbers out when they are there; the answer is the caller's own."""
        answer = torch.empty(numbers.shape, pin_memory=True)
        answer.copy_(numbers, non_blocking=True)
        self._done[lane].record()
        self._done[lane].synchronize()
        fetched: NDArray[np.float32] = answer.numpy()
        return fetched

    def _batch_for(self, count: int) -> int:
        return self._fixed or rounded(count, self._max_batch)

    def _capture(self, shape: Size) -> list["_Graph"]:
        """Capture a graph for each lane. One at a time: `CompiledSizes` has a single worker."""
        return [
            _Graph(picking(self._make(), self._head), shape, stream, pool)
            for stream, pool in zip(self._recorders, self._pools, strict=True)
        ]


def picking(run: Forward, head: Head | None) -> Picking:
    """Run a network, and pick the surest of what it gives where that can be done."""

    def both(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        output = run(pixels).float()
        return output, None if head is None else pick(output, head)

    return both


class _Graph:
    """The launches of one batch, height and width, replayed as one."""

    def __init__(self, run: Picking, shape: Size, stream: torch.cuda.Stream, pool: Any) -> None:
        self._run = run  # owns memory that the graph works in
        with torch.inference_mode():
            self._input = torch.zeros((*shape, 3), dtype=torch.uint8, device=DEVICE)
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

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Replay on the current stream; the output is overwritten by the next call."""
        self._input.copy_(pixels)
        self._graph.replay()
        return self._output
