"""Models in S3 and what speaks like it, by s3fs: credentials as AWS's own tools find them.

Not by obstore, which is 29 MB smaller: it reads no profiles (AWS_PROFILE, a mounted credentials
file), and without credentials asks the machine's metadata service instead of going on unsigned.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from yoloserve.errors import BackendUnsupported, ModelDownloadFailed, ModelNotFound, bare
from yoloserve.model.sources import pace
from yoloserve.model.sources.pace import Pace, unanswered
from yoloserve.model.sources.store import discard, size_of, validator_of

R = TypeVar("R")
RANGE = 8 * 2**20
CHUNK = 2**20
TRIES = 3  # of an object that is written anew while it is read


class _Changed(Exception):
    """It is another object than was begun."""


class _Paced:
    """The body of a range, in the place of one that is read to its end however far that is.

    botocore's own limit is on the time without a byte.
    """

    def __init__(self, body: Any, url: str) -> None:
        self._body = body
        self._url = url
        self.close = body.close

    async def read(self) -> bytes:
        whole, measured = bytearray(), Pace(self._url)
        while chunk := await self._next():
            whole += chunk
            if len(whole) > RANGE:
                raise ModelDownloadFailed(
                    f"{bare(self._url)}: more came than the part that was asked for; its store "
                    "has to understand Range"
                )
            measured.came(len(chunk))
        return bytes(whole)

    async def _next(self) -> bytes:
        from botocore.exceptions import ReadTimeoutError

        try:
            chunk: bytes = await self._body.read(CHUNK)
        except TimeoutError:  # of another kind, over which fsspec and s3fs stumble (IndexError)
            raise ReadTimeoutError(endpoint_url=bare(self._url)) from None
        return chunk


def download(url: str, part: Path, *, most: int) -> None:
    """Bring the object at `url` to `part`, going on with what is there already.

    Raises `ModelNotFound`, `ModelDownloadFailed`, and `OSError` for a disk that is full.
    """
    bucket, _, path = url.removeprefix("s3://").strip("/").partition("/")
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):  # S3's words quote it
        raise ModelNotFound(
            f"there is no object in {bare(url)}: no such address has a user; give"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not path:
        raise ModelNotFound(f"there is no object in {bare(url)}: it names a bucket alone")
    store = _store(url)
    for _ in range(TRIES):
        try:
            return _go_on(store, url, part, most)
        except _Changed:
            discard(part)
    raise ModelDownloadFailed(f"cannot download {bare(url)}: it changed {TRIES} times meanwhile")


def _go_on(store: Any, url: str, part: Path, most: int) -> None:
    path = url.removeprefix("s3://")
    with _asked(partial(store.open, path, cache_type="none"), url=url) as remote:
        compared = remote.details  # with each range, by s3fs: the ETag, where it has one
        if compared["type"] == "directory":
            raise ModelNotFound(
                f"there is no object {bare(url)}, only a folder of that name: name one object in "
                "it, and store an OpenVINO folder as one archive"
            )
        begun = version, size = _version(compared)
        if size > most:
            raise ModelDownloadFailed(f"{bare(url)} is larger than {most} bytes")
        noted = validator_of(part)
        if size_of(part) > size or not noted.is_file() or noted.read_text() != version:
            discard(part)
        noted.write_text(version)

        def unchanged() -> bool:
            return _version(_asked(partial(store.info, path, refresh=True), url=url)) == begun

        if not version:
            compared.pop("ETag", None)
        with part.open("ab") as file:
            remote.seek(file.tell())
            while wanted := min(RANGE, size - file.tell()):
                try:
                    brought = _asked(partial(remote.read, wanted), url=url)
                except _Changed:
                    # Some stores name an object otherwise, or not at all, where they send it.
                    if "ETag" not in compared or not unchanged():
                        raise
                    del compared["ETag"]
                    continue
                if len(brought) != wanted:  # a little at a time would have no end
                    if not unchanged():
                        raise _Changed
                    discard(part)  # a small object may yet come whole
                    raise ModelDownloadFailed(
                        f"{bare(url)}: {len(brought)} bytes came where {wanted} were asked for"
                    )
                file.write(brought)
        if "ETag" not in compared and not unchanged():
            raise _Changed


def _version(details: Mapping[str, Any]) -> tuple[str, int]:
    return str(details.get("ETag", "")), int(details["size"])


def _store(url: str) -> Any:
    try:
        import botocore.session
        import s3fs
    except ImportError as error:
        raise BackendUnsupported(
            f"s3:// needs the package {error.name}: install the extra `s3`"
        ) from error

    class Paced(s3fs.S3FileSystem):  # type: ignore[misc]  # untyped
        async def _info(self, *args: Any, **kwargs: Any) -> Any:
            async with _in_time(url):  # it lists, where an object is not found
                try:
                    return await super()._info(*args, **kwargs)
                except KeyError as error:
                    raise ModelDownloadFailed(
                        f"cannot download {bare(url)}: its store tells no size (Content-Length)"
                    ) from error

        async def _call_s3(self, *args: Any, **kwargs: Any) -> Any:
            async with _in_time(url):
                answer = await super()._call_s3(*args, **kwargs)
            if "Body" in answer:
                answer["Body"] = _Paced(answer["Body"], url)
            return answer

    credentials = botocore.session.get_session().get_credentials()
    return Paced(
        anon=credentials is None,
        skip_instance_cache=True,
        local_expiry_check=True,  # of each range; not every store knows If-Match
    )


@asynccontextmanager
async def _in_time(url: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(pace.ANSWER_S):
            yield
    except TimeoutError as error:
        raise unanswered(url) from error


def _asked(call: Callable[[], R], *, url: str) -> R:
    from botocore.exceptions import BotoCoreError, ClientError
    from s3fs.utils import FileExpired

    try:
        return call()
    except FileExpired:
        raise _Changed from None
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no {bare(url)}") from error
    except (OSError, BotoCoreError, ClientError) as error:  # s3fs translates most into the first
        of_store = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {})
        if of_store.get("HTTPStatusCode") == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _Changed from None  # it has become shorter
        raise ModelDownloadFailed(f"cannot download {bare(url)}: {error}") from error
