"""Who is let in: keys from a file, tokens from an issuer that rotates its own."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from yoloserve.access import tokens as access_tokens
from yoloserve.access.keys import ApiKeys
from yoloserve.access.tokens import Tokens
from yoloserve.errors import InvalidSettings, KeysUnavailable, Unauthorized

KEY = "correct-horse-battery"
OTHER = "staple-staple-staple"
DOTTED = "a.key.that-looks-like-a-token"
ISSUER, AUDIENCE = "https://issuer.example.com", "detectors"
HOUR_S = 3600
NOW = 2_000_000_000
"""When tokens are made, and read: a machine that stands still in between makes none too old."""


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(
        f"# who may ask\ngate {KEY}\nyard sha256:{sha256(OTHER.encode()).hexdigest()} 2.5\n\n"
        f"shop {DOTTED}\n"
    )
    return file


def test_a_key_tells_whose_it_is(keys_file: Path, clock) -> None:
    keys = ApiKeys(keys_file, clock)
    assert keys.client(KEY).name == "gate"
    assert keys.client(OTHER).name == "yard"
    assert keys.client(OTHER).per_second == 2.5
    for wrong in ("", KEY[:-1], KEY + "x", f"sha256:{sha256(OTHER.encode()).hexdigest()}", "é"):
        with pytest.raises(Unauthorized):
            keys.client(wrong)


def test_a_comment_begins_after_a_blank_and_a_key_may_have_its_sign(keys_file: Path) -> None:
    keys_file.write_text(
        f"#gate {OTHER}\n  # all of them\ngate {KEY}#2026 5 # at the north\nyard {OTHER}\t#south\n"
    )
    keys = ApiKeys(keys_file)
    assert keys.client(f"{KEY}#2026").per_second == 5
    assert keys.find(KEY) is None, "the beginning of a key opens nothing"
    assert keys.client(OTHER).name == "yard"


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(keys_file: Path, clock) -> None:
    keys = ApiKeys(keys_file, clock)

    def rewrite(text: str) -> None:
        other = keys_file.with_suffix(".new")
        other.write_text(text)
        os.replace(other, keys_file)  # as Kubernetes does with a mounted Secret
        clock.now += 2

    rewrite(f"yard {OTHER}\n")
    assert keys.client(OTHER).name == "yard"
    with pytest.raises(Unauthorized):
        keys.client(KEY)
    rewrite("short x\n")
    assert keys.client(OTHER).name == "yard"
    keys_file.unlink()
    clock.now += 2
    assert keys.client(OTHER).name == "yard"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("gate", "expected a name, a key"),
        ("gate short", "at least 16 characters"),
        ("gate sha256:abc", "64 hex digits"),
        (f"gate {KEY} many", "'many' is no number"),
        (f"gate {KEY} nan", "'nan' is no number from 0 on"),
        (f"gate {KEY} inf", "'inf' is no number"),
        (f"gate {KEY} 1e999", "'1e999' is no number"),
        (f"gate {KEY} -5", "'-5' is no number"),
        (f"gate {KEY} 1 2", "expected a name, a key"),
        (f"gate #{KEY}", "expected a name, a key"),
        (f"gate sha256:{'0' * 64}#north", "64 hex digits"),
    ],
)
def test_a_wrong_line_is_told_without_the_key(keys_file: Path, line: str, told: str) -> None:
    keys_file.write_text(f"# one\n{line}\n")
    with pytest.raises(InvalidSettings, match=f"line 2: .*{told}") as refused:
        ApiKeys(keys_file)
    assert KEY not in str(refused.value)


def test_a_mounted_secret_is_read_again_when_the_kubelet_replaces_it(tmp_path, clock) -> None:
    def bring(version: str, text: str) -> None:
        """Write a new folder beside the old one, and turn the link to it at once."""
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(text)
        (tmp_path / "..tmp").symlink_to(version)
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        clock.now += 2

    bring("..1", f"gate {KEY}\n")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = ApiKeys(tmp_path / "keys", clock)
    assert keys.client(KEY).name == "gate"
    bring("..2", f"gate {OTHER}\n")
    assert keys.client(OTHER).name == "gate"
    with pytest.raises(Unauthorized):
        keys.client(KEY)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot read the API keys"):
        ApiKeys(tmp_path / "none")


@dataclass
class Issuer:
    """Signs tokens, and publishes its keys on a server that can be broken."""

    keys: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    broken: Callable[[], httpx.Response] | None = None

    def answer(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.broken:
            return self.broken()
        return httpx.Response(200, json={"keys": [self.jwk(kid) for kid in self.keys]})

    def jwk(self, kid: str) -> dict[str, Any]:
        public = self.keys[kid].public_key()
        kind = jwt.algorithms.RSAAlgorithm if kid.startswith("rsa") else jwt.algorithms.ECAlgorithm
        return json.loads(kind.to_jwk(public)) | {"kid": kid, "use": "sig"}

    def token(self, kid: str, algorithm: str, /, key: Any = None, **claims: Any) -> str:
        told = {"sub": "gate", "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60} | claims
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key or self.keys[kid], algorithm, headers={"kid": kid})


RSA = rsa.generate_private_key(65537, 2048)


class Standing(datetime):
    """The time of day, which is always the same."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Standing":
        return cls.fromtimestamp(NOW, tz)


@pytest.fixture(autouse=True)
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who reads tokens; it takes no clock."""
    monkeypatch.setattr(jwt.api_jwt, datetime.__name__, Standing)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer({"rsa-1": RSA, "ec-1": ec.generate_private_key(ec.SECP256R1())})


@pytest.fixture
def tokens(issuer: Issuer, clock) -> Tokens:
    http = httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer))
    return Tokens(
        "https://issuer.example.com/keys",
        issuer=ISSUER,
        audiences=(AUDIENCE, "others"),
        leeway_s=30,
        http=http,
        clock=clock,
    )


@pytest.mark.parametrize(
    ("kid", "algorithm"), [("rsa-1", "RS256"), ("rsa-1", "RS512"), ("ec-1", "ES256")]
)
async def test_a_token_of_the_issuer_is_let_in(tokens, issuer, kid: str, algorithm: str) -> None:
    client = await tokens.client(issuer.token(kid, algorithm))
    assert client.name == "gate"
    assert client.expires == NOW + 60 + 30


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"nbf": 2**33}, "not yet valid"),
        ({"iss": "https://else.example.com"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"aud": "someone-else"}, "udience"),
        ({"aud": None}, "aud"),
    ],
)
async def test_a_wrong_claim_is_refused(tokens, issuer, claims: dict, told: str) -> None:
    with pytest.raises(Unauthorized, match=told):
        await tokens.client(issuer.token("rsa-1", "RS256", **claims))


async def test_a_clock_that_is_a_little_off_is_forgiven(tokens, issuer) -> None:
    await tokens.client(issuer.token("rsa-1", "RS256", exp=NOW - 29, nbf=NOW + 30))
    with pytest.raises(Unauthorized, match="expired"):
        await tokens.client(issuer.token("rsa-1", "RS256", exp=NOW - 30))
    with pytest.raises(Unauthorized, match="not yet valid"):
        await tokens.client(issuer.token("rsa-1", "RS256", nbf=NOW + 31))


async def test_only_signatures_of_the_issuer_count(tokens, issuer) -> None:
    forged = rsa.generate_private_key(65537, 2048)
    unsigned = jwt.encode({"exp": 2**33}, None, "none", headers={"kid": "rsa-1"})
    curve = issuer.token("rsa-1", "ES256", key=issuer.keys["ec-1"])
    for token in (
        issuer.token("rsa-1", "RS256", key=forged),
        issuer.token("rsa-1", "HS256", key="x" * 64),
        issuer.token("rsa-1", "PS256"),
        unsigned,
        curve,  # signed with one of the keys, by the other's name
        issuer.token("rsa-1", "RS256")[:-4] + "AAAA",
        "a.b.c",
        "",
    ):
        with pytest.raises(Unauthorized):
            await tokens.client(token)


def told_by(header: str) -> str:
    """Write a token with this header; nobody signed it."""
    parts = header.encode(), b"{}", b"x"
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    "header",
    [
        '{"alg": ["RS256"]}',
        '{"alg": {}}',
        '{"alg": null}',
        '{"alg": NaN}',
        '{"alg": "\\ud800"}',
        '{"alg": "RS256", "kid": ["rsa-1"]}',
        '{"alg": "RS256", "kid": "\\ud800"}',
        '{"alg": "RS256", "crit": {}}',
        '{"alg": "RS256", "x": ' + "[" * 20_000 + "]" * 20_000 + "}",
        '["RS256"]',
        "RS256",
    ],
)
async def test_a_header_of_any_other_kind_is_refused(tokens, header: str) -> None:
    with pytest.raises(Unauthorized):
        await tokens.client(told_by(header))


async def test_claims_that_nobody_can_write_down_end_no_request(tokens, issuer) -> None:
    with pytest.raises(Unauthorized, match="not valid"):
        await tokens.client(issuer.token("rsa-1", "RS256", exp=10**400))
    named = await tokens.client(issuer.token("rsa-1", "RS256", sub="half \ud800"))
    assert named.name == "half ?"


async def test_a_weak_key_is_not_used(tokens, issuer) -> None:
    issuer.keys["rsa-weak"] = rsa.generate_private_key(65537, 1024)
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = issuer.token("rsa-weak", "RS256")
    with pytest.raises(Unauthorized, match="not one that its issuer publishes"):
        await tokens.client(token)


async def test_a_new_key_is_found_and_an_old_one_forgotten(tokens, issuer, clock) -> None:
    old = issuer.token("rsa-1", "RS256")
    await tokens.client(old)
    issuer.keys["rsa-2"] = issuer.keys.pop("rsa-1")
    clock.now += 11
    await tokens.client(issuer.token("rsa-2", "RS256"))
    with pytest.raises(Unauthorized):
        await tokens.client(old)


async def test_names_of_keys_nobody_knows_do_not_flood_the_issuer(tokens, issuer, clock) -> None:
    issuer.keys["gone"] = RSA
    token = issuer.token("gone", "RS256")
    del issuer.keys["gone"]
    for _ in range(50):
        with pytest.raises(Unauthorized):
            await tokens.client(token)
    assert issuer.asked == 1
    clock.now += 11
    with pytest.raises(Unauthorized):
        await tokens.client(token)
    assert issuer.asked == 2


async def test_known_keys_serve_while_the_issuer_does_not_answer(tokens, issuer, clock) -> None:
    token = issuer.token("rsa-1", "RS256")
    await tokens.client(token)
    issuer.broken = lambda: httpx.Response(500)
    clock.now += 700
    for _ in range(3):
        await tokens.client(token)
        await tokens._refresh
    assert issuer.asked == 2


class Dripping(httpx.AsyncByteStream):
    """A body that never ends; each read of it is in time."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"keys": ['
        await asyncio.Event().wait()


async def test_an_issuer_that_never_comes_to_an_end_is_given_up(
    tokens, issuer, clock, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(access_tokens, "FETCH_TIMEOUT_S", 0.05)
    issuer.broken = lambda: httpx.Response(200, stream=Dripping())
    asking = [tokens.client(issuer.token("rsa-1", "RS256")) for _ in range(3)]
    answers = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 60)
    assert [type(answer) for answer in answers] == [KeysUnavailable] * 3
    assert issuer.asked == 1
    [record] = [each for each in caplog.records if "keys were not read" in each.message]
    assert record.__dict__["reason"] == "there was no whole answer within 0.05 s"


async def test_keys_are_read_again_once_at_a_time(tokens, issuer, clock, monkeypatch) -> None:
    """A task more each ten seconds waited for the one that hung."""
    monkeypatch.setattr(access_tokens, "FETCH_TIMEOUT_S", HOUR_S)
    token = issuer.token("rsa-1", "RS256")
    await tokens.client(token)
    issuer.broken = lambda: httpx.Response(200, stream=Dripping())
    clock.now += 700
    before = asyncio.all_tasks()
    for _ in range(12):
        await tokens.client(token)
        await tokens.client(token)  # before the task has begun
        for _ in range(9):
            await asyncio.sleep(0)
        clock.now += 11
    assert issuer.asked == 2
    assert len(asyncio.all_tasks() - before) == 1
    await tokens.close()


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("no route")


@pytest.mark.parametrize(
    "broken",
    [
        unreachable,
        lambda: httpx.Response(500),
        lambda: httpx.Response(200, text="<html>"),
        lambda: httpx.Response(200, json=[]),
        lambda: httpx.Response(200, json={"keys": 3}),
        lambda: httpx.Response(200, content=bytes(2**20 + 1)),
    ],
)
async def test_without_any_key_nobody_can_say(tokens, issuer, clock, broken) -> None:
    issuer.broken = broken
    token = issuer.token("rsa-1", "RS256")
    with pytest.raises(KeysUnavailable):
        await tokens.client(token)
    issuer.broken = None
    clock.now += 11
    await tokens.client(token)


async def test_a_key_is_shown_in_any_of_three_ways(serve, jpeg: bytes, keys_file: Path) -> None:
    basic = "Basic " + base64.b64encode(f"anyone:{KEY}".encode()).decode()
    async with serve(api_keys_file=keys_file) as served:
        for headers in (
            {"Authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer {KEY}"},
            {"X-Api-Key": KEY},
            {"Authorization": basic},
        ):
            assert (await served.detect(jpeg, **headers)).status_code == 200
        for headers in (
            {},
            {"Authorization": KEY},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic !"},
            {"Authorization": b"Basic YW\xb55b25lOmtleQ=="},
            {"X-Api-Key": "wrong"},
            {"Authorization": f"Bearer {KEY}x"},
        ):
            refused = await served.detect(jpeg, **headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "unauthorized"
            assert "Bearer" in refused.headers["www-authenticate"]
            assert refused.headers["x-yolofleet-revision"] == "gate-1234"


@pytest.mark.parametrize("metrics_open", [True, False])
async def test_only_probes_and_perhaps_metrics_are_open(serve, keys_file, metrics_open) -> None:
    async with serve(api_keys_file=keys_file, metrics_open=metrics_open) as served:
        for path in ("/health/live", "/health/ready"):
            assert (await served.client.get(path)).status_code == 200
        status = 200 if metrics_open else 401
        assert (await served.client.get("/metrics")).status_code == status
        closed = ["/", "/docs", "/openapi.json", "/page/page.js", "/nowhere", "/health/live/"]
        closed += ["/health//live", "/v1/detect", "//metrics", "/health/%2e%2e/docs"]
        for path in closed:
            assert (await served.client.get(path)).status_code == 401, path


async def test_nobody_unknown_has_a_byte_read(serve, keys_file: Path) -> None:
    async def body():
        raise AssertionError("it was read")
        yield b""

    async with serve(api_keys_file=keys_file) as served:
        assert (await served.client.post("/v1/detect", content=body())).status_code == 401


async def test_a_key_may_have_a_quota_of_its_own(
    serve, clock, jpeg: bytes, keys_file: Path
) -> None:
    async with serve(clock=clock, api_keys_file=keys_file) as served:
        yard = [await served.detect(jpeg, **{"X-Api-Key": OTHER}) for _ in range(3)]
        gate = [await served.detect(jpeg, **{"X-Api-Key": KEY}) for _ in range(3)]
        clock.now += 1
        assert (await served.detect(jpeg, **{"X-Api-Key": OTHER})).status_code == 200
    assert [answer.status_code for answer in yard] == [200, 200, 429]
    assert [answer.status_code for answer in gate] == [200, 200, 200]


async def test_tokens_and_keys_work_side_by_side(
    serve, jpeg: bytes, keys_file: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(_: Tokens) -> list[dict[str, Any]]:
        return [issuer.jwk(kid) for kid in issuer.keys]

    monkeypatch.setattr(Tokens, "_fetch", fetch)
    settings = {
        "api_keys_file": keys_file,
        "jwt_jwks_uri": "https://issuer.example.com/keys",
        "jwt_issuer": ISSUER,
        "jwt_audiences": (AUDIENCE,),
    }
    async with serve(**settings) as served:
        token = issuer.token("ec-1", "ES256")
        for secret, status in (
            (token, 200),
            (KEY, 200),
            (DOTTED, 200),
            (token[:-4] + "AAAA", 401),
            ("x", 401),
        ):
            answer = await served.detect(jpeg, Authorization=f"Bearer {secret}")
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize("uri", ["https://idp:8443x/keys", "https://me:Hunter/2 x@idp/keys"])
async def test_an_address_of_keys_that_is_none_is_told_without_a_password(
    issuer, caplog, uri: str
) -> None:
    with pytest.raises(KeysUnavailable):
        await Tokens(uri).client(issuer.token("rsa-1", "RS256"))
    [record] = [each for each in caplog.records if "keys were not read" in each.message]
    assert "unter" not in str(record.__dict__)
    assert record.__dict__["reason"] == "it is no URL that can be asked"


async def test_while_no_key_can_be_read_the_answer_is_to_come_back(
    serve, jpeg, issuer, nobodys_port: int
) -> None:
    async with serve(jwt_jwks_uri=f"http://127.0.0.1:{nobodys_port}/keys") as served:
        token = issuer.token("rsa-1", "RS256")
        answer = await served.detect(jpeg, Authorization=f"Bearer {token}")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "keys_unavailable"
    assert answer.headers["retry-after"] == "10"
