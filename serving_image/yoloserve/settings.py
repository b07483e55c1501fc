"""What the server is told: environment `YOLOSERVE_*` or flags, read once into a frozen value."""

import difflib
import enum
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from yoloserve.errors import InvalidSettings
from yoloserve.origins import require_origins

ENV_PREFIX = "YOLOSERVE_"
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
# What else Kubernetes makes up for each Service of a name that begins like this.
OF_SERVICE = re.compile(
    r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
SHA256 = r"^[0-9a-f]{64}$"

T = TypeVar("T")
_SERVING = object()
ServeOnly = Annotated[T, _SERVING]  # a setting of `serve` that no other command has


class BackendName(enum.StrEnum):
    """The runtimes a model can be asked to run on."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    TENSORRT = "tensorrt"


class PrecisionName(enum.StrEnum):
    """The number formats a model can be asked to compute in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class HeadName(enum.StrEnum):
    """The layouts of a network's output; their members are those of `postprocess.Head`."""

    AUTO = "auto"
    ANCHOR_FREE = "anchor-free"
    ANCHOR_FREE_ROWS = "anchor-free-rows"
    OBJECTNESS = "objectness"
    END_TO_END = "end-to-end"


class Profile(enum.StrEnum):
    """What the engine is tuned for."""

    REALTIME = "realtime"
    THROUGHPUT = "throughput"


def _temporary() -> Path:
    """Name the temporary directory; without a writable one there is no cache, and no failure."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return Path("/tmp")


class _Environment(EnvSettingsSource):
    """The environment, less what Kubernetes makes up for a Service called `yoloserve`."""

    def __call__(self) -> dict[str, Any]:
        """Read it; the address of a Service (`YOLOSERVE_PORT=tcp://...`) is no port of ours."""
        variables = super().__call__()
        if SERVICE_LINK.match(str(variables.get("port", ""))):
            del variables["port"]
        return variables


class LastWords(BaseSettings):
    """Where the reason of a failed start goes; readable when the other settings are not."""

    # An empty variable is an unset one: that is how a manifest writes "no value".
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic names it)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic names it)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic names it)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags, then the environment."""
        return init_settings, _Environment(settings_cls)

    termination_log: ServeOnly[Path] = Field(
        Path("/dev/termination-log"),
        description="File that gets the reason of a failed start; ignored when not writable.",
    )


class Settings(LastWords, extra="forbid"):
    """Every option of `yoloserve`; a field's description is its help text."""

    model: str = Field(
        "demo://shapes",
        description="Address of the model: demo://shapes, demo://shapes-v2, file:///path, "
        "https://host/path, s3://bucket/key or oci://registry/name:tag. Understood are ONNX, "
        "TorchScript, OpenVINO IR (a folder, or an archive of it) and TensorRT engines.",
    )
    model_username: str = Field("", description="User name for the model's address (Basic).")
    model_password: SecretStr | None = Field(None, description="Password to go with it.")
    model_token: SecretStr | None = Field(
        None, description="Token for the model's address (Bearer), instead of a user name."
    )
    registry_plain_http: bool = Field(
        False, description="Speak HTTP with the registry of oci://; always so on this machine."
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        None,
        description="Digest the model file must have, 64 hex digits. Checked before it is loaded. "
        "A model that comes over plain http needs it.",
    )
    classes: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Class names the model must have, in this order, as a JSON list. "
        "Names a model that carries none.",
    )
    head: HeadName = Field(
        HeadName.AUTO,
        description="Layout of the network's output: anchor-free (4 + classes, places), "
        "anchor-free-rows (the same, transposed), objectness (places, 5 + classes) or end-to-end "
        "(objects, 6). auto tells it by shape, metadata and numbers, and refuses what it cannot.",
    )
    allow_blind: bool = Field(
        False,
        description="Serve a model although its scores are the same whatever the picture; the log "
        "has a warning then.",
    )
    allow_pickle: bool = Field(
        False,
        description="Load Torch checkpoints (.pt): they can run any code, and need the "
        "`ultralytics` package, whose licence is AGPL-3.0.",
    )
    allow_torchscript: bool = Field(
        False,
        description="Load TorchScript models: they are programs, and can run any code. The bundled "
        "ones need no leave.",
    )
    allow_engine: bool = Field(
        False, description="Load TensorRT engines that were made elsewhere: they are native code."
    )
    name: str = Field("", description="Name of the detector in answers; default: the file's name.")
    version: str = Field(
        "", description="Version in answers; default: the model's metadata, else the file's name."
    )
    revision: ServeOnly[str] = Field(
        "", description="Revision in answers and in X-Yolofleet-Revision."
    )
    namespace: ServeOnly[str] = Field(
        "", description="Namespace of the Services of this detector's revisions, for the shadow."
    )

    backend: BackendName = Field(
        BackendName.AUTO, description="Runtime; auto takes the fastest that is here and fits."
    )
    precision: PrecisionName = Field(
        PrecisionName.AUTO,
        description="Number format; auto takes the fastest that the device computes natively.",
    )
    profile: Profile = Field(
        Profile.REALTIME,
        description="realtime: one image a call, lowest latency; throughput: dynamic batches.",
    )
    max_batch: int = Field(8, ge=1, le=256, description="Largest batch of the throughput profile.")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0: the container's CPU limit, else all cores."
    )

    image_size: int = Field(
        0, ge=0, le=8192, description="Side of the network's input in pixels; 0: the model's own."
    )
    stride: int = Field(
        0,
        ge=0,
        le=256,
        description="Stride of a network with a dynamic input; 0: the model's own, else 32.",
    )
    confidence: float = Field(0.25, ge=0, le=1, description="Default confidence threshold.")
    iou: float = Field(0.7, ge=0, le=1, description="Default IoU threshold of the suppression.")
    agnostic_nms: bool = Field(
        False,
        description="Whether by default a box suppresses those of other classes, too: one object "
        "has one class then.",
    )
    max_detections: int = Field(300, ge=1, le=10_000, description="Default detections per image.")
    deadline_ms: ServeOnly[float] = Field(
        500, gt=0, le=600_000, description="Answers later than this are refused, never sent late."
    )
    trust_request_start: ServeOnly[bool] = Field(
        False,
        description="Count deadlines from the header x-request-start (t=SECONDS.MILLISECONDS since "
        "1970), by which a gateway says when it met a request. Only where the gateway replaces "
        "what callers send, and its clock is ours: a stamp of the future, or older than 10 s, is "
        "passed over.",
    )
    quota_per_second: ServeOnly[float] = Field(
        0,
        ge=0,
        le=1e6,
        description="Images a second that one client may send, and as many at once; 0: no quota. "
        "A client is an API key or a token's subject, else the address of the connection.",
    )

    api_keys_file: ServeOnly[Path | None] = Field(
        None,
        description="File of API keys: on each line a name, a key (or sha256:DIGEST) and, if "
        "wanted, its images a second. Read again when it changes.",
    )
    jwt_jwks_uri: ServeOnly[str] = Field(
        "",
        pattern="^(https?://.+)?$",
        description="Where the issuer of tokens publishes its keys (JWKS); empty: no tokens.",
    )
    jwt_issuer: ServeOnly[str] = Field("", description="Issuer that a token must name.")
    jwt_audiences: ServeOnly[Annotated[tuple[str, ...] | None, NoDecode]] = Field(
        None, description="Audiences, one of which a token must name, as a JSON list."
    )
    jwt_leeway_seconds: ServeOnly[float] = Field(
        30, ge=0, le=3600, description="How far the issuer's clock may be from this one."
    )
    cors_origins: ServeOnly[Annotated[tuple[str, ...] | None, NoDecode]] = Field(
        None,
        description="Sites whose pages may ask from a browser, as a JSON list of origins: "
        '"https://app.example.com", "http://localhost:3000"; or "*" alone, for every page, which '
        "gets no credentials from the browser then. Default: none but this server's own page.",
    )
    url_hosts: ServeOnly[Annotated[tuple[str, ...] | None, NoDecode]] = Field(
        None,
        description='Hosts that {"url": ...} may name, as a JSON list: "cams.example.com", '
        '"cams.example.com:8443", "*.example.com", or "*" for the whole public internet. '
        "Default: none, nothing is fetched.",
    )
    url_networks: ServeOnly[Annotated[tuple[IPvAnyNetwork, ...] | None, NoDecode]] = Field(
        None,
        description='Private networks that allowed hosts may be in, as a JSON list: "10.1.0.0/16".',
    )
    url_http: ServeOnly[bool] = Field(False, description="Fetch over plain http, too.")
    url_timeout_seconds: ServeOnly[float] = Field(
        5,
        gt=0,
        le=60,
        description="Longest time to fetch a picture, redirects included; and, before that, to "
        "wait for one of 32 places, of which a host has 8.",
    )
    max_images: ServeOnly[int] = Field(
        16, ge=1, le=1024, description="Most images in one request of several."
    )
    probe_interval_seconds: ServeOnly[float] = Field(
        30,
        ge=0,
        le=3600,
        description="How often, when idle, the network is shown the probe picture, to see whether "
        "it still sees; 0: never.",
    )
    max_streams: ServeOnly[int] = Field(
        64,
        ge=0,
        le=10_000,
        description="Most open streams (WebSocket). The last eighth is for clients that have less "
        "than half of them.",
    )
    stream_idle_seconds: ServeOnly[float] = Field(
        300,
        ge=0,
        le=86_400,
        description="A stream that sends no frame for so long is closed (3008); 0: never.",
    )
    max_connections: ServeOnly[int] = Field(
        1000,
        ge=1,
        le=100_000,
        description="Most open connections, streams apart. When all are taken, one that is idle "
        "makes room for the next, and health checks are let in beyond. The last eighth is for "
        "clients (addresses) that have less than half of them.",
    )
    metrics_open: ServeOnly[bool] = Field(
        True, description="Show /metrics to everybody, even where keys or tokens are asked for."
    )
    evidence_port: ServeOnly[int] = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of GET /evidence: counters by which releases are judged. It asks for no "
        "key, so let nobody but the operator reach it. 0: it is not served.",
    )
    metrics_port: ServeOnly[int] = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of GET /metrics alone, of this very server: where PORT leads to any of "
        "several, as on Ray. It asks for no key. 0: it is not served.",
    )
    live_dir: ServeOnly[Path | None] = Field(
        None,
        description="Folder of live.json: what may change while the server runs, as the shadow "
        "does. Read again when it changes.",
    )
    shadow_key_file: ServeOnly[Path | None] = Field(
        None,
        description="File of the key by which revisions of one detector know each other: with it "
        "pictures are replayed to another one, and replayed ones are told from requests. Read "
        "again when it changes.",
    )
    frames_key_file: ServeOnly[Path | None] = Field(
        None,
        description="File of the key that shows the pictures on which this revision and the one "
        "that it shadows differ most; no client's key does. Without one none is kept. Read again "
        "when it changes.",
    )
    golden_dir: ServeOnly[Path | None] = Field(
        None,
        description="Folder of pictures whose objects are known (NAME.jpg or NAME.png, NAME.txt "
        "with YOLO's labels, and classes.txt or data.yaml), on which the model is tried once it "
        "is ready.",
    )
    access_log: ServeOnly[bool] = Field(
        False, description="Log each request. Costs a tenth of the throughput of a fast device."
    )

    front_processes: ServeOnly[int] = Field(
        0,
        ge=0,
        le=64,
        description="Processes before the engine's that speak HTTP and decode pictures, for an "
        "accelerator that is faster than one process feeds it; 0: one process does all.",
    )
    host: ServeOnly[str] = Field(
        "127.0.0.1",
        description="Address to listen on; * is every one, of IPv4 and IPv6, as in the image.",
    )
    port: ServeOnly[int] = Field(
        8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one, of one address."
    )
    drain_seconds: ServeOnly[float] = Field(
        0,
        ge=0,
        le=3600,
        description="After SIGTERM, answer on (but not ready) this long, then finish and exit.",
    )
    max_body_bytes: ServeOnly[int] = Field(
        32 * 2**20, ge=1024, description="Largest request body; the answer to more is 413."
    )
    max_pixels: int = Field(
        # A frame of 8K video has 33 million. Decoded, a pixel takes three bytes of memory.
        40_000_000,
        ge=1,
        description="Largest image, width times height; checked in its header, before decoding.",
    )
    body_timeout_seconds: ServeOnly[float] = Field(
        10,
        gt=0,
        le=600,
        description="Longest time until a new connection has sent a request's head, that a head, "
        "and then its body, may take to arrive, and that an answer may lie unread.",
    )

    cache_dir: Path = Field(
        default_factory=lambda: _temporary() / "yoloserve",
        description="Directory for downloaded and compiled models; created when absent.",
    )
    max_model_bytes: int = Field(
        2 * 2**30, ge=1, description="Largest model file that is downloaded."
    )

    @model_validator(mode="after")
    def _tokens_need_keys(self) -> Self:
        if (self.jwt_issuer or self.jwt_audiences) and not self.jwt_jwks_uri:
            raise ValueError("an issuer or audiences of tokens need JWT_JWKS_URI to check them")
        return self

    @model_validator(mode="after")
    def _one_port_of_both_families(self) -> Self:
        if not self.host and not self.port:  # each family would take a free one of its own
            raise ValueError("HOST * needs a PORT: 0 takes a free one of one address")
        return self

    @model_validator(mode="after")
    def _one_port_each(self) -> Self:
        taken = {self.port: "of requests"}
        for name in ("evidence", "metrics"):
            if not (number := getattr(self, f"{name}_port")):
                continue
            if number in taken:
                raise ValueError(
                    f"{name.upper()}_PORT is {number}, the port {taken[number]}: it needs one of"
                    " its own"
                )
            taken[number] = f"of the {name}"
        return self

    @field_validator(
        "classes", "jwt_audiences", "cors_origins", "url_hosts", "url_networks", mode="before"
    )
    @classmethod
    def _json_list(cls, value: Any) -> Any:
        """Read the list here, for a flag and for the environment alike."""
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(
                f'Input should be a JSON list like ["person", "car"] ({error})'
            ) from None

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        require_origins(value or ())
        return value

    @field_validator("host")
    @classmethod
    def _every_address(cls, value: str) -> str:
        """Say it as asyncio does; a variable cannot, for an empty one is unset."""
        return "" if value == "*" else value

    @field_validator("sha256", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Read the environment and, over it, `given`; raise `InvalidSettings` for every fault."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise InvalidSettings("; ".join(map(_message, error.errors()))) from None


def passed_over(environment: Mapping[str, str]) -> dict[str, str]:
    """Name what looks like a setting and is none, each with the setting nearest to it, if any."""
    known = {name.upper() for name in Settings.model_fields}
    unknown = {}
    for variable, value in environment.items():
        name = variable.upper().removeprefix(ENV_PREFIX)
        made_up = SERVICE_LINK.match(value) or OF_SERVICE.search("_" + name)
        if variable.upper().startswith(ENV_PREFIX) and name not in known and not made_up:
            near = difflib.get_close_matches(name, known, 1)
            unknown[variable] = ENV_PREFIX + near[0] if near else ""
    return unknown


SERVE_ONLY = frozenset(
    name for name, setting in Settings.model_fields.items() if _SERVING in setting.metadata
)


def _message(fault: ErrorDetails) -> str:
    if not fault["loc"]:  # of several fields together; their values may be secret
        return fault["msg"].removeprefix("Value error, ")
    name = ENV_PREFIX + str(fault["loc"][0]).upper()
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}, not {fault['input']!r}"
