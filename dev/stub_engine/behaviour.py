"""How the stub behaves: what it was told, read again when the file changes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from yoloserve.errors import InvalidSettings
from yoloserve.rereading import Reread

log = logging.getLogger(__name__)

PREFIX = "YOLOSTUB_"


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Self:
        """Read the variables that are the stub's; raise `InvalidSettings` for every fault."""
        own = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in variables.items()
            if name.startswith(PREFIX)
        }
        try:
            return cls.model_validate(own)
        except ValidationError as error:
            raise InvalidSettings(
                "; ".join(
                    f"{PREFIX}{str(fault['loc'][0]).upper()}: {fault['msg']}"
                    for fault in error.errors()
                )
            ) from None


class Behaviour(_Told):
    """What may change while it runs."""

    service_ms: float = Field(20, ge=0, le=60_000)
    service_ms_per_image: float = Field(0, ge=0, le=60_000)
    service_ms_per_megapixel: float = Field(0, ge=0, le=60_000)
    failures: float = Field(0, ge=0, le=1)

    def seconds(self, images: int, pixels: int) -> float:
        """Say how long a call takes; pixels: of all its images."""
        megapixels = pixels / 1e6
        milliseconds = (
            self.service_ms
            + self.service_ms_per_image * images
            + self.service_ms_per_megapixel * megapixels
        )
        return milliseconds / 1000


class Stub(Behaviour):
    """All that the environment may say."""

    lanes: int = Field(1, ge=1, le=64)
    max_batch: int = Field(1, ge=1, le=1024)
    candidates: int = Field(0, ge=0, le=1000)
    file: Path | None = None


class Source:
    """The behaviour of this moment: the environment's, and over it the file's."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        stub = Stub.read(environment)
        self._environment = {
            name: value
            for name, value in environment.items()
            if name.removeprefix(PREFIX).lower() in Behaviour.model_fields
        }
        self._from_file = Reread(stub.file, self._read) if stub.file else None
        self._from_environment = Behaviour.read(self._environment)

    @property
    def now(self) -> Behaviour:
        """What is told now; a file that cannot be read, or be meant, leaves what was told last."""
        if self._from_file is None:
            return self._from_environment
        try:
            if self._from_file.look():
                told = self._from_file.content.model_dump()
                log.info("behaviour of the stub", extra=told)
        except InvalidSettings as error:
            log.warning("behaviour of the stub not changed", extra={"reason": str(error)})
        return self._from_file.content

    def _read(self, file: Path) -> Behaviour:
        """Read a file, which may be absent, and come later."""
        try:
            lines = file.read_text().splitlines()
        except FileNotFoundError:
            lines = []
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"{PREFIX}FILE: cannot read {file}: {error}") from None
        return Behaviour.read(self._environment | _variables(lines))


def _variables(lines: list[str]) -> dict[str, str]:
    """Read lines `NAME=VALUE`; empty ones and those that begin with # say nothing."""
    told = {}
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals or not name.startswith(PREFIX):
                raise InvalidSettings(f"{line!r} is not of the form {PREFIX}NAME=VALUE")
            told[name.strip()] = value.strip()
    return told
