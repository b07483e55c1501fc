"""What users are shown in `tests/operator/golden` as a server's words are a server's."""

import re
from pathlib import Path

import pytest

from yoloserve.errors import DigestMismatch
from yoloserve.model import weights
from yoloserve.model.formats import Format
from yoloserve.settings import Settings

GOLDEN = Path(__file__).parents[1] / "operator" / "golden"
DIGEST = r"[0-9a-f]{64}"


def test_a_wrong_digest_is_told_as_the_server_tells_it(tmp_path: Path) -> None:
    shown = (GOLDEN / "digest-mismatch.txt").read_text(encoding="utf-8")
    [told] = set(re.findall(r"Message: +digest-mismatch-\w+: (model .*)", shown))
    model = tmp_path / "gate.onnx"
    model.write_bytes(b"another one")
    settings = Settings(model=model.as_uri(), sha256="5d" * 32, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DigestMismatch) as refused:
        weights.fetch(settings, Format.ONNX)
    said = str(refused.value).replace(model.as_uri(), "https://models.example.com/gate-v7.onnx")
    assert re.sub(DIGEST, "DIGEST", told) == re.sub(DIGEST, "DIGEST", said)
