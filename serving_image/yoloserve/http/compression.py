"""Bodies that come or go compressed, as Triton's clients do: gzip and deflate (RFC 9110, 8.4)."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Sequence

from yoloserve.errors import InvalidParameter, UnsupportedMediaType, quoted
from yoloserve.http import negotiation

WINDOW_OF = {"gzip": 31, "deflate": 15}  # zlib's wbits; HTTP's "deflate" is the format of zlib
AS_IT_IS = "", "identity"
PIECE = 65_536
LEVEL = 1  # most of the gain for a third of the time
LEAST_BYTES = 1024  # less is one packet either way


async def decompressed(
    chunks: AsyncGenerator[bytes, None], encoding: str
) -> AsyncGenerator[bytes, None]:
    """Undo a `Content-Encoding`, a piece at a time; the limit on the whole is the reader's.

    A bomb grows a thousandfold, so others get their turn after each piece. Raises
    `UnsupportedMediaType` before anything is read, and `InvalidParameter`.
    """
    encoding = encoding.strip().lower().removeprefix("x-")
    if encoding in AS_IT_IS:
        async for chunk in chunks:
            yield chunk
        return
    if encoding not in WINDOW_OF:
        raise UnsupportedMediaType(f"Content-Encoding: {quoted(encoding)}; send gzip or deflate")
    unpacker = zlib.decompressobj(WINDOW_OF[encoding])
    async for chunk in chunks:
        rest, piece = chunk, b""
        while rest or len(piece) == PIECE:  # a full piece: there may be more of it
            try:
                piece = unpacker.decompress(rest, PIECE)
            except zlib.error as error:
                raise InvalidParameter(f"the body is not {encoding}: {error}") from None
            rest = unpacker.unconsumed_tail
            if piece:
                yield piece
                await asyncio.sleep(0)
        if unpacker.unused_data:
            raise InvalidParameter(f"the body goes on after the end of its {encoding}")
    if not unpacker.eof:
        raise InvalidParameter(f"the body is {encoding} that is cut short")


def chosen(accepted: Sequence[str]) -> str | None:
    """Choose how to compress an answer by the lines of `Accept-Encoding`; None: not at all."""
    return negotiation.encoding(tuple(WINDOW_OF), accepted)


def compressed(body: bytes, encoding: str) -> bytes:
    """Compress an answer."""
    packer = zlib.compressobj(LEVEL, wbits=WINDOW_OF[encoding])
    return packer.compress(body) + packer.flush()
