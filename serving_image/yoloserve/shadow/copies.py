"""What is shown of one request, whatever it was spoken in: single pictures, each with its answer.

Each goes to `POST /v1/detect` of the other revision as a request of its own. That one has another
model, whose name, version and limits of `/v2` may be others, and an image that may know less; a
picture and no option is what all of them take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from yoloserve.detector import Answer, Source
from yoloserve.errors import Refusal
from yoloserve.images.letterbox import Image
from yoloserve.images.pixels import LONGEST_SIDE, Pixels, bmp
from yoloserve.shadow.pairs import NEARLY, Found

LARGEST = 8 * 2**20  # bytes of a picture


@dataclass(slots=True, eq=False, weakref_slot=True)
class Copy:
    """A picture that is to be shown once it is answered."""

    picture: bytes | Pixels | Image  # what was sent; of numbers, once they are one, the picture
    size: int  # bytes, as it is shown
    revision: str  # for whom it was drawn
    as_file: bool  # it came so: both revisions have the same to decode
    answer: Answer | None = None

    def source(self) -> Source:
        """Give what is looked at in the place of what was sent."""
        if isinstance(self.picture, Pixels):
            return replace(self.picture, make=self._image)
        assert isinstance(self.picture, bytes)
        return self.picture

    def _image(self) -> Image:
        """Make the picture, and keep it in the place of the request that it was a part of."""
        if isinstance(self.picture, Pixels):
            self.picture = self.picture.make()
        assert not isinstance(self.picture, bytes)
        return self.picture

    def found(self, classes: tuple[str, ...], confidence: float) -> Found:
        """Give what was found in it by a model of these classes, at this threshold."""
        assert self.answer is not None
        assert self.answer.nearly is not None
        timing = self.answer.timing
        compute_s = timing.compute if self.as_file else timing.compute - timing.decode
        return Found(self.answer.nearly, classes, confidence, compute_s)

    def encoded(self) -> bytes:
        """Give it as it is shown; to be called on a thread, unless it is bytes."""
        assert not isinstance(self.picture, Pixels)
        return self.picture if isinstance(self.picture, bytes) else bmp(self.picture)


def size_of(source: Source) -> int:
    """Say how many bytes are to be shown."""
    return len(source) if isinstance(source, bytes) else source.bmp_bytes


def is_too_large(source: Source) -> bool:
    """Say whether a picture is too large to be shown, or would not be read as one."""
    sides = () if isinstance(source, bytes) else (source.width, source.height)
    return size_of(source) > LARGEST or max(sides, default=0) > LONGEST_SIDE


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of one request, and which of them are to be shown."""

    sent: Sequence[Source]
    copies: Sequence[Copy | None] = ()  # of each; of none, where nobody is to be shown anything

    @property
    def sources(self) -> Sequence[Source]:
        """Give what is to be looked at."""
        if not self.copies:
            return self.sent
        each = zip(self.sent, self.copies, strict=True)
        return [copy.source() if copy else source for source, copy in each]

    @property
    def below(self) -> Sequence[float]:
        """Say of each how far under the threshold its objects are wanted."""
        if not self.copies:
            return [0] * len(self.sent)
        return [NEARLY if copy else 0 for copy in self.copies]

    def answered(self, answers: Sequence[Answer | Refusal]) -> bool:
        """Take what each was answered with; say whether there is anything to show."""
        for copy, answer in zip(self.copies, answers, strict=False):
            if copy and isinstance(answer, Answer):
                copy.answer = answer
        return bool(self.shown)

    @property
    def shown(self) -> Sequence[Copy]:
        """Give those that were answered."""
        return [copy for copy in self.copies if copy and copy.answer]
