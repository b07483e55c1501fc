"""How slow a download may be: a server that trickles would keep a pod starting for ever."""

import time
from collections.abc import Iterator

from yoloserve.errors import ModelDownloadFailed, bare

SLOWEST_BYTES_PER_S = 10_000
WINDOW_S = 60.0
ANSWER_S = 300.0  # until there is an answer, redirects and all; its body is read after that


class Pace:
    """Measures one body as it comes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since, self._received = time.monotonic(), 0

    def came(self, size: int) -> None:
        """Count so many bytes more; raise `ModelDownloadFailed` where they come too slowly."""
        self._received += size
        if (took := time.monotonic() - self._since) <= WINDOW_S:
            return
        if self._received < SLOWEST_BYTES_PER_S * took:
            raise ModelDownloadFailed(
                f"{bare(self._url)} sends {self._received / took:.0f} bytes a second, less than "
                f"{SLOWEST_BYTES_PER_S}"
            )
        self._since, self._received = time.monotonic(), 0


def unanswered(url: str) -> ModelDownloadFailed:
    """Return what to raise where there is no answer in `ANSWER_S`."""
    return ModelDownloadFailed(f"{bare(url)}: no whole answer in {ANSWER_S:.0f} s")


def paced(chunks: Iterator[bytes], url: str) -> Iterator[bytes]:
    """Pass a body on as it comes; raise `ModelDownloadFailed` where it comes too slowly."""
    pace = Pace(url)
    for chunk in chunks:
        yield chunk
        pace.came(len(chunk))
