"""Models as OCI artifacts: what `oras push` makes, read by the distribution's HTTP API.

Source: github.com/opencontainers/distribution-spec, and Docker's token authentication.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from yoloserve.errors import (
    InvalidSettings,
    ModelDownloadFailed,
    ModelNotFound,
    ModelUnsupported,
    bare,
)
from yoloserve.model.sources.http import GONE, NO_URL, OF_TOKENS, answer, authorization, client
from yoloserve.model.sources.pace import paced
from yoloserve.settings import Settings

Form = TypeVar("Form", bound=BaseModel)
ADDRESS = re.compile(
    r"oci://(?P<host>[^/]+)/(?P<name>[a-z0-9._/-]+?)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))?(?:#(?P<title>.+))?"
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MOST_MANIFEST_BYTES = 4 * 2**20  # the specification's own limit
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


class Annotations(BaseModel):
    """What is said of a file, as far as it matters here."""

    title: str | None = Field(None, alias="org.opencontainers.image.title")


class Layer(BaseModel):
    """A file, or in an index a manifest."""

    digest: str
    annotations: Annotations | None = None  # clients in Go write what is empty as null

    @property
    def title(self) -> str:
        """The file's name, where it has one."""
        return (self.annotations and self.annotations.title) or ""


class Manifest(BaseModel):
    """What a registry tells of an artifact, or an index of some."""

    layers: list[Layer] | None = None
    manifests: list[Layer] | None = None


class Token(BaseModel):
    """What lets a client in; who grants it may call it by either name."""

    token: str | None = Field(None, pattern=OF_TOKENS)
    access_token: str | None = Field(None, pattern=OF_TOKENS)


@dataclass(frozen=True, slots=True)
class Blob:
    """The file to download."""

    url: str
    sha256: str
    headers: dict[str, str]
    title: str


def is_open_to_all(settings: Settings) -> bool:
    """Say whether the manifest comes over plain http from elsewhere, under no digest of its own."""
    address = ADDRESS.fullmatch(settings.model)
    return bool(
        address
        and settings.registry_plain_http
        and not _is_here(address["host"])
        and not address["digest"]
    )


def _is_here(host: str) -> bool:
    return re.sub(r":\d+$", "", host) in LOOPBACK


def resolve(settings: Settings) -> Blob:
    """Ask the registry which file the address means.

    Raises `InvalidSettings`, `ModelNotFound`, `ModelDownloadFailed`, or `ModelUnsupported`.
    """
    address = ADDRESS.fullmatch(settings.model)
    if address is None:
        raise InvalidSettings(
            f"model {bare(settings.model)!r}: write oci://registry/name:tag or "
            "oci://registry/name@sha256:…, and #file where an artifact has several"
        )
    host, name, title = address["host"], address["name"], address["title"]
    reference = address["digest"] or address["tag"] or "latest"
    asked, whole = host.rpartition("@")[2], bare(settings.model)
    plain = settings.registry_plain_http or _is_here(host)
    base = f"{'http' if plain else 'https'}://{host}/v2/{name}"
    try:
        with client() as http:
            registry = _Registry(http, settings)
            manifest = registry.manifest(f"{base}/manifests/", reference)
            if manifest.manifests:  # an index, of platforms that models do not have
                first = _digest(manifest.manifests[0], whole)
                manifest = registry.manifest(f"{base}/manifests/", first)
    except httpx.InvalidURL:
        raise ModelDownloadFailed(f"cannot ask {asked} for {whole}: {NO_URL}") from None
    except httpx.HTTPError as error:
        raise ModelDownloadFailed(f"cannot ask {asked} for {whole}: {error}") from error
    layer = _chosen(manifest.layers or [], title, settings.model)
    digest = _digest(layer, whole)
    return Blob(
        f"{base}/blobs/{digest}",
        digest.removeprefix("sha256:"),
        registry.headers,
        layer.title or name.rpartition("/")[2],
    )


def _digest(named: Layer, whole: str) -> str:
    """Return the digest by which `named` is asked for, and what comes is proved."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", named.digest):
        raise ModelUnsupported(f"{whole} is named by {named.digest!r}, not by a SHA-256")
    return named.digest


def _chosen(layers: list[Layer], title: str | None, address: str) -> Layer:
    fitting = [layer for layer in layers if title in (None, layer.title)]
    if len(fitting) == 1:
        return fitting[0]
    raise ModelUnsupported(
        f"{bare(address)} has the files {', '.join(layer.title for layer in layers) or 'none'}: "
        "name one with #file, and push an OpenVINO folder as one archive"
    )


def _read(form: type[Form], content: bytes, url: str) -> Form:
    try:
        return form.model_validate_json(content)
    except ValidationError as error:  # never with what was read: there may be a token in it
        [fault, *_] = error.errors(include_input=False, include_url=False, include_context=False)
        where = "".join(f"{part}: " for part in fault["loc"])
        raise ModelDownloadFailed(
            f"{bare(url)} answered something else than a {form.__name__.lower()}: "
            f"{where}{fault['msg']}"
        ) from None


class _Registry:
    """A conversation with a registry; gets a token when it is asked for one."""

    def __init__(self, http: httpx.Client, settings: Settings) -> None:
        self._http = http
        self._own = authorization(settings)
        self.headers = dict(self._own) if settings.model_token else {}

    def manifest(self, base: str, reference: str) -> Manifest:
        url = base + reference
        response, content = self._get_manifest(url)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._authenticate(response)
            response, content = self._get_manifest(url)
        if response.status_code in GONE:
            raise ModelNotFound(f"{bare(url)} answered {response.status_code}")
        response.raise_for_status()
        if reference.startswith("sha256:"):
            got = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if got != reference:
                raise ModelDownloadFailed(f"{bare(url)} has the digest {got}")
        return _read(Manifest, content, url)

    def _get_manifest(self, url: str) -> tuple[httpx.Response, bytes]:
        return self._get(url, {"Accept": ", ".join(MANIFESTS), **self.headers})

    def _get(
        self, url: str, headers: dict[str, str], params: dict[str, str] | None = None
    ) -> tuple[httpx.Response, bytes]:
        """Ask for what is small; returns the answer's head, and its body."""
        body = bytearray()
        with answer(self._http, url, headers=headers, params=params) as response:
            for chunk in paced(response.iter_bytes(), url):
                body += chunk
                if len(body) > MOST_MANIFEST_BYTES:
                    raise ModelDownloadFailed(f"{bare(url)} is larger than a manifest may be")
        return response, bytes(body)

    def _authenticate(self, refused: httpx.Response) -> None:
        scheme, _, rest = refused.headers.get("www-authenticate", "").partition(" ")
        if scheme.lower() == "basic":
            self.headers = self._own
            return
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in asked:
            return  # what comes next is told as it is
        where = {key: asked[key] for key in ("service", "scope") if key in asked}
        granted, content = self._get(asked["realm"], self._own, where)
        granted.raise_for_status()
        told = _read(Token, content, asked["realm"])
        if token := told.token or told.access_token:  # else what comes next is told as it is
            self.headers = {"Authorization": f"Bearer {token}"}
