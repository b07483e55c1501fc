"""What the path of requests has to count, whoever adds it up."""

from typing import Protocol

from yoloserve.detector import Answer
from yoloserve.errors import Miss, Refusal, TooLate
from yoloserve.scheduling.connections import Cut
from yoloserve.telemetry.traffic import Traffic

HURRIED = "hurried"  # too late for the caller, and no later than the server promises


class Counting(Protocol):
    """Counts what became of pictures: a request of several is so many, answered or not."""

    active: int
    """Requests of any kind, and streams, that are under way."""

    def answered(
        self,
        answer: Answer,
        classes: tuple[str, ...],
        traffic: Traffic,
        waited_s: float,
        among: int = 1,
    ) -> None:
        """Count one answer sent in time; what it has in it only if a caller asked for it.

        waited_s: how long its caller waited, from the body's last byte; of pictures that are
        answered together it is the same, and more than their timing tells.
        among: how many pictures its request has.
        """

    def refused(self, code: str, traffic: Traffic, images: int = 1, among: int = 1) -> None:
        """Count pictures that got no detections. among: how many their request has, if more."""

    def missed(self, miss: Miss, images: int = 1) -> None:
        """Count pictures whose deadline was missed, by where."""

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request of HTTP."""

    def cut(self, why: Cut) -> None:
        """Count one connection that was ended."""

    def refusal(
        self,
        error: Refusal,
        traffic: Traffic,
        *,
        hurried: bool = False,
        images: int = 1,
        among: int = 1,
    ) -> None:
        """Count pictures that got an error, and where their deadline was missed if it was.

        hurried: whether the caller wanted it earlier than the server promises. To miss that is told
        apart: a caller that asks for 1 ms makes no revision a bad one.
        """
        late = isinstance(error, TooLate)
        self.refused(HURRIED if late and hurried else error.code, traffic, images, among)
        if isinstance(error, TooLate) and traffic is Traffic.REQUEST:
            self.missed(error.miss, images)
