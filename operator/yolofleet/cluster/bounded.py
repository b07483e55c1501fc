"""Answers of servers that are not ours to trust: read so far, and no further."""

import aiohttp


async def body_of(answer: aiohttp.ClientResponse, *, most: int) -> bytes:
    """Return the body; of one that is longer a part that is longer too, by which it is known."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(2**16):
        body += chunk
        if len(body) > most:
            break
    return bytes(body)
