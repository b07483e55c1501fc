"""Pictures as the files of a form, read without touching a disk."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from yoloserve.errors import InvalidParameter
from yoloserve.http.options import OPTIONS, refuse_unknown

FORM_FIELDS = "file", "image"
MOST_IN_MEMORY = 2**40
Files = list[tuple[str, bytes]]
ReadsFiles = Callable[[AsyncGenerator[bytes, None]], Awaitable[Files]]


def one_file(request: Request) -> ReadsFiles:
    """Read the one file of a form."""

    async def read(chunks: AsyncGenerator[bytes, None]) -> Files:
        files = await _files(request, chunks, 1, FORM_FIELDS)
        if not files:
            raise InvalidParameter(f"the form has no file in a field {' or '.join(FORM_FIELDS)}")
        return files[:1]

    return read


def all_files(request: Request, most: int) -> ReadsFiles:
    """Read every file of a form, whatever its field is called."""

    async def read(chunks: AsyncGenerator[bytes, None]) -> Files:
        files = await _files(request, chunks, most, ())
        if not files:
            raise InvalidParameter("the form has no file: send each image as a file of it")
        return files

    return read


class _FormOfFiles(MultiPartParser):
    """Takes parts for files also without `filename`, which is optional (RFC 7578, 4.2)."""

    known: Collection[str] = ()  # names that fields may have; none: any, if it is a file

    def on_headers_finished(self) -> None:
        """Refuse a field that is no picture by its name, before its content is read."""
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        typed = any(field == b"content-type" for field, _ in part.item_headers)
        is_file = b"filename" in options or typed or name in FORM_FIELDS
        if name in OPTIONS:
            raise InvalidParameter(f"{name}: a form holds pictures; say ?{name}=... in the address")
        if self.known or not is_file:
            refuse_unknown([name], self.known or FORM_FIELDS, "field of a form")
        if b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


def _without_charset(request: Request) -> Headers:
    """Give the type of a form with nothing but its boundary: names are in UTF-8 (RFC 7578, 5.1.2).

    By a charset Starlette would take any codec of Python. Some raise what is no error of decoding,
    some make half characters, which no answer can hold, and Python remembers for ever which names
    it looked for.
    """
    _, told = parse_options_header(request.headers.get("content-type"))
    boundary = told.get(b"boundary", b"")
    if not boundary or b'"' in boundary or b"\\" in boundary:  # no sign of one (RFC 2046, 5.1.1)
        raise InvalidParameter("the form cannot be read: its Content-Type gives no boundary")
    return Headers(raw=[(b"content-type", b'multipart/form-data; boundary="%s"' % boundary)])


async def _files(
    request: Request, chunks: AsyncGenerator[bytes, None], most: int, fields: Collection[str]
) -> Files:
    parser = _FormOfFiles(_without_charset(request), chunks, max_files=most, max_fields=0)
    parser.known = fields
    parser.spool_max_size = MOST_IN_MEMORY  # never to disk: the file system may be read-only
    try:
        form = await parser.parse()
        return [
            (value.filename or name, await value.read())
            for name, value in form.multi_items()
            if isinstance(value, UploadFile)
        ]
    except MultiPartException as error:
        raise InvalidParameter(f"the form cannot be read: {error.message}") from error
    finally:
        for file in parser._files_to_close_on_error:  # the form does not know those that are cut
            file.close()
