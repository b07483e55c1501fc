"""Models in S3 and what speaks like it, by s3fs: credentials as AWS's own tools find them.

Not by obstore, which is 29 MB smaller: it reads no profiles (AWS_PROFILE, a mounted credentials
file), and without credentials asks the machine's metadata service instead of going on unsigned.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from yoloserve.errors import BackendUnsupported, ModelDownloadFailed, ModelNotFound
from yoloserve.model.sources.store import discard, size_of, validator_of

RANGE = 8 * 2**20


def download(url: str, part: Path, *, most: int) -> None:
    """Bring the object at `url` to `part`, going on with what is there already.

    Raises `ModelNotFound`, `ModelDownloadFailed`, and `OSError` for a disk that is full.
    """
    store, path = _store(), url.removeprefix("s3://")
    info = _asked(store.info, path, url=url)
    size, version = int(info["size"]), str(info.get("ETag", ""))
    if size > most:
        raise ModelDownloadFailed(f"{url} is larger than {most} bytes")
    noted = validator_of(part)
    if size_of(part) > size or not noted.is_file() or noted.read_text() != version:
        discard(part)
    noted.write_text(version)
    with part.open("ab") as file:
        while (have := file.tell()) < size:
            get = partial(store.cat_file, start=have, end=min(have + RANGE, size))
            file.write(_asked(get, path, url=url))


def _store() -> Any:
    try:
        import botocore.session
        import s3fs
    except ImportError as error:
        raise BackendUnsupported(
            f"s3:// needs the package {error.name}: install the extra `s3`"
        ) from error
    credentials = botocore.session.get_session().get_credentials()
    return s3fs.S3FileSystem(anon=credentials is None, skip_instance_cache=True)


def _asked(call: Callable[[str], Any], path: str, *, url: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(path)
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no {url}") from error
    except (OSError, BotoCoreError, ClientError) as error:  # s3fs translates most into the first
        raise ModelDownloadFailed(f"cannot download {url}: {error}") from error
