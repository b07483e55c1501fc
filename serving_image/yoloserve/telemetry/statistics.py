"""What Triton's statistics count, for `/v2/.../stats` and for metrics by Triton's names."""

import time
from collections import Counter
from typing import Any

from yoloserve.detector import Timing

REASONS = "REJECTED", "CANCELED", "BACKEND", "OTHER"
REASON_OF = {
    "overloaded": "REJECTED",
    "over_quota": "REJECTED",
    "deadline_exceeded": "REJECTED",
    "hurried": "REJECTED",
    "canceled": "CANCELED",
    "internal": "BACKEND",
}


class Statistics:
    """Counts and times since the start; times in seconds."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.executions = 0
        self.total_s = self.queue_s = self.input_s = self.infer_s = self.output_s = 0.0
        self._last = 0.0

    def answered(self, timing: Timing, waited_s: float) -> None:
        """Count one image that was answered, after its caller had waited for so long."""
        self.succeeded += 1
        self.total_s += waited_s
        self.queue_s += timing.queue
        self.input_s += timing.decode + timing.preprocess
        self.infer_s += timing.inference
        self.output_s += timing.postprocess
        self._last = time.time()

    def refused(self, code: str, images: int) -> None:
        """Count images that were not, by Triton's reasons."""
        self.failed[REASON_OF.get(code, "OTHER")] += images

    def executed(self) -> None:
        """Count one call of the engine."""
        self.executions += 1

    def as_dict(self, name: str, version: str) -> dict[str, Any]:
        """Write them as Triton's statistics extension does; times in nanoseconds."""

        def spent(seconds: float, count: int = self.succeeded) -> dict[str, int]:
            return {"count": count, "ns": int(seconds * 1e9)}

        return {
            "name": name,
            "version": version,
            "last_inference": int(self._last * 1000),
            "inference_count": self.succeeded,
            "execution_count": self.executions,
            "inference_stats": {
                "success": spent(self.total_s),
                "fail": spent(0, self.failed.total()),
                "queue": spent(self.queue_s),
                "compute_input": spent(self.input_s),
                "compute_infer": spent(self.infer_s),
                "compute_output": spent(self.output_s),
                "cache_hit": spent(0, 0),
                "cache_miss": spent(0, 0),
            },
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }
