"""Downloads over HTTP: resumed where they broke off, tried again, and never without an end."""

import base64
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from yoloserve.errors import InvalidSettings, ModelDownloadFailed, ModelNotFound, bare
from yoloserve.model.sources import pace
from yoloserve.model.sources.pace import paced, unanswered
from yoloserve.model.sources.store import discard, size_of, validator_of
from yoloserve.settings import Settings

TIMEOUT_S = 30.0  # without a byte, not for the whole file
MAX_REDIRECTS = 5
TRIES = 5  # in a row without a byte more
MOST_TRIES = 100
BACK_OFF_S = 0.5  # doubled each time
LONGEST_WAIT_S = 30.0
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
GONE = {404, 410}
# httpx's own words have the beginning of a password in them, as what is no port.
NO_URL = "it is no URL that can be asked (https://HOST:PORT/PATH; in a password write / as %2F)"

OF_TOKENS = r"^[!-~]*$"  # what no header takes the client tells in words that quote all of it


class TryAgain(Exception):
    """The server may do better a little later."""

    def __init__(self, reason: str, after_s: float = 0) -> None:
        super().__init__(reason)
        self.after_s = after_s


def client() -> httpx.Client:
    """Make a client that trusts the system's authorities (SSL_CERT_FILE too)."""
    return httpx.Client(
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=TIMEOUT_S,
        verify=ssl.create_default_context(),
        event_hooks={"response": [_without_what_a_redirect_brings]},
    )


def _without_what_a_redirect_brings(response: httpx.Response) -> None:
    """Leave it unread: httpx would read it to its end and unpack it, however much that is."""
    if response.has_redirect_location:
        response.close()
        response.is_closed, response.stream = False, httpx.ByteStream(b"")
        response.headers.pop("content-encoding", None)


@contextmanager
def answer(http: httpx.Client, url: str, **asked: Any) -> Iterator[httpx.Response]:
    """Ask, and give the answer once its head is there, its body unread.

    In a thread, which is left behind where that takes too long: httpx's own limit is on the time
    without a byte, and a head, or what comes before one (103 Early Hints), may have no end.
    """
    request, head = http.build_request("GET", url, **asked), Future[httpx.Response]()

    def ask() -> None:
        try:
            head.set_result(http.send(request, stream=True))
        except Exception as error:  # handed on to who waits
            head.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        response = head.result(pace.ANSWER_S)
    except TimeoutError:
        raise unanswered(url) from None
    with closing(response):
        yield response


def authorization(settings: Settings) -> dict[str, str]:
    """Return the header that carries the credentials for the model's address, if there are any.

    httpx leaves it out when it is redirected to another host. Raises `InvalidSettings`.
    """
    if settings.model_token:
        token = settings.model_token.get_secret_value()
        if not re.fullmatch(OF_TOKENS, token):
            raise InvalidSettings(
                "YOLOSERVE_MODEL_TOKEN has something in it that no token has: a blank, the end of "
                "a line, or a letter with an accent"
            )
        return {"Authorization": f"Bearer {token}"}
    if settings.model_username:
        password = settings.model_password.get_secret_value() if settings.model_password else ""
        pair = base64.b64encode(f"{settings.model_username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


def download(url: str, part: Path, *, most: int, headers: Mapping[str, str], pinned: bool) -> None:
    """Bring the file at `url` to `part`, going on with what is there already.

    pinned: its digest is known, so that it does not matter which way it comes. Raises
    `ModelNotFound`, `ModelDownloadFailed`, and `OSError` for a disk that is full.
    """
    in_a_row = 0
    with client() as http:
        for _ in range(MOST_TRIES):
            before = size_of(part)
            try:
                _go_on(http, url, part, most, headers, pinned=pinned)
            except httpx.InvalidURL:
                raise ModelDownloadFailed(f"cannot download {bare(url)}: {NO_URL}") from None
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise ModelDownloadFailed(f"cannot download {bare(url)}: {error}") from error
            except (httpx.HTTPError, TryAgain) as error:
                in_a_row = 1 if size_of(part) > before else in_a_row + 1
                if in_a_row == TRIES:
                    if not _noted(part):
                        discard(part)  # nobody can go on with it
                    raise ModelDownloadFailed(
                        f"cannot download {bare(url)}: {error or type(error).__name__}; "
                        f"tried {TRIES} times"
                    ) from error
                asked_for = error.after_s if isinstance(error, TryAgain) else 0
                time.sleep(min(max(BACK_OFF_S * 2**in_a_row, asked_for), LONGEST_WAIT_S))
            else:
                return
    raise ModelDownloadFailed(f"cannot download {bare(url)}: it broke off {MOST_TRIES} times")


def _go_on(
    http: httpx.Client,
    url: str,
    part: Path,
    most: int,
    headers: Mapping[str, str],
    *,
    pinned: bool,
) -> None:
    have, version = size_of(part), _noted(part)
    asked = {"Accept-Encoding": "identity", **headers}
    if have and version:  # only of this very version: else the server sends all of it
        asked |= {"Range": f"bytes={have}-", "If-Range": version}
    with answer(http, url, headers=asked) as response:
        _require_good(response, url, part)
        if not pinned and any(each.url.scheme == "http" for each in (*response.history, response)):
            raise ModelDownloadFailed(
                f"{bare(url)} leads to plain http, where anybody could replace the model: give its "
                "digest as YOLOSERVE_SHA256 (spec.model.sha256)"
            )
        resumed, sent = response.status_code == httpx.codes.PARTIAL_CONTENT, _version(response)
        if resumed and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
            discard(part)
            raise TryAgain("it sent another range than was asked for")
        if resumed and sent and sent != version:  # there are servers that know Range alone
            discard(part)
            raise TryAgain("it sent the rest of another version")
        size = have if resumed else 0
        _require_room(size + int(response.headers.get("content-length", 0)), most, url, part)
        if not resumed:
            validator_of(part).write_text(sent)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in paced(response.iter_raw(), url):
                size += len(chunk)
                _require_room(size, most, url, part)
                file.write(chunk)


def _require_good(response: httpx.Response, url: str, part: Path) -> None:
    status = response.status_code
    if status in GONE:
        raise ModelNotFound(f"{bare(url)} answered {status}")
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        discard(part)  # the file has become shorter
        raise TryAgain("it has no more to send, and what there was is not whole")
    if status in TRY_AGAIN:
        wait = response.headers.get("retry-after", "")
        raise TryAgain(f"it answered {status}", float(wait) if wait.isdecimal() else 0)
    if status in (401, 403):
        raise ModelDownloadFailed(
            f"{bare(url)} answered {status}: give credentials as YOLOSERVE_MODEL_TOKEN, or as "
            "YOLOSERVE_MODEL_USERNAME and YOLOSERVE_MODEL_PASSWORD, or other ones"
        )
    if not response.is_success:
        raise ModelDownloadFailed(f"{bare(url)} answered {status}")


def _require_room(size: int, most: int, url: str, part: Path) -> None:
    if size > most:
        discard(part)
        raise ModelDownloadFailed(f"{bare(url)} is larger than {most} bytes")


def _version(response: httpx.Response) -> str:
    etag: str = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")


def _noted(part: Path) -> str:
    try:
        return validator_of(part).read_text()
    except FileNotFoundError:
        return ""
