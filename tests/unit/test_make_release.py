"""`make release`: what is refused, and what is written."""

import fcntl
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cluster.errors import StepFailed
from cluster.mode import Mode
from release import chart, making, registry, rules, sbom
from release.errors import Refused, WrongResult
from release.making import Listing
from release.rules import Facts
from release.sbom import Inventory, Package

Git = Callable[..., None]

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
CHANGELOG = """# Changelog

## Unreleased

## 1.2.3 – 2026-01-01
- Something. (#1)

## [1.2.2] - 2025-12-01
- Before.
"""
GOOD = Facts(
    version="1.2.3",
    registry="registry.example.com/team",
    changelog=CHANGELOG,
    changed="",
    commit="c" * 40,
)
DOCKER_HUB = (
    "docker.io",
    "docker.io/team",
    "index.docker.io/team",
    "registry-1.docker.io:443/team",
    "registry.hub.docker.com/team",
    "team",
    "team/a.b",
    "localhost-b/a",
)
BUSY = CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n### Fixed\n- A fault. (#2)\n")


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        replace(GOOD, registry=""),
        replace(GOOD, registry="127.0.0.1:5000/a", stand_in=True),
        replace(GOOD, registry="localhost/a", stand_in=True),
        replace(GOOD, registry="localhost:5000/a", stand_in=True),
        replace(GOOD, registry="team:5000"),
        replace(GOOD, registry="mydocker.io/a__b/c--d"),
        replace(GOOD, registry="", stand_in=True),
        replace(GOOD, version="2.0.0-rc.1", changelog=BUSY),
        replace(GOOD, made_of="c" * 40),
        replace(GOOD, indexes=("https://pypi.example.com/simple/a@b",)),
        replace(GOOD, registry="", indexes=("https://me:secret@pypi.example.com/simple",)),
    ],
)
def test_what_is_in_order_is_released(facts: Facts) -> None:
    assert rules.refusals(facts) == []


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(GOOD, version=""), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="1.2"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="01.2.3"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="1.2.3-rc.01"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="../1.2.3"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="1.2.3\n"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="1.2.1\u0663"), "MAJOR.MINOR.PATCH"),
        (replace(GOOD, version="v1.2.3"), "write 1.2.3"),
        (replace(GOOD, version="1.2.3+build.5"), "`+`"),
        (replace(GOOD, version="1.2.3-" + "a" * 50), "label"),
        (replace(GOOD, version="1.2.3-a-"), "label"),
        (replace(GOOD, version="1.2.4"), "newest version in CHANGELOG.md is 1.2.3"),
        (replace(GOOD, version="1.2.2"), "newest version in CHANGELOG.md is 1.2.3"),
        (replace(GOOD, changelog="# Changelog\n"), "newest version in CHANGELOG.md is none"),
        (replace(GOOD, changelog=BUSY), "under Unreleased"),
        (replace(GOOD, changed=" M Makefile"), "commit or remove first:\n M Makefile"),
        (replace(GOOD, registry="https://ghcr.io/a"), "without a scheme"),
        (replace(GOOD, registry="ghcr.io/A"), "small letters"),
        (replace(GOOD, registry="ghcr.io/a/"), "slash at the end"),
        (replace(GOOD, registry="ghcr.io/a..b"), "HOST[:PORT][/PATH]"),
        *((replace(GOOD, registry=hub), "such as ghcr.io/OWNER") for hub in DOCKER_HUB),
        (replace(GOOD, made_of="d" * 40), "made of dddddddddddd"),
        (replace(GOOD, indexes=("https://me:secret@pypi.example.com/simple",)), "a login"),
        (replace(GOOD, indexes=("https://a.example.com https://token@b.example.com",)), "a login"),
        (replace(GOOD, stand_in=True), "not for registry.example.com/team"),
        (replace(GOOD, registry="localhost.example.com", stand_in=True), "certificates"),
        (replace(GOOD, registry="127.0.0.1.example.com/a", stand_in=True), "certificates"),
    ],
)
def test_what_is_not_is_refused_with_what_to_do(facts: Facts, told: str) -> None:
    assert told in "\n".join(rules.refusals(facts))


def test_all_reasons_are_told_at_once() -> None:
    assert len(rules.refusals(replace(GOOD, version="v1.2.3", changed=" M a", registry="A"))) == 3


@pytest.mark.parametrize("version", ["0.1.0", "10.20.30-alpha.1", "1.0.0--.-x", "1.0.0-0"])
def test_a_version_is_a_tag_and_a_label(version: str) -> None:
    assert rules.refusals(replace(GOOD, version=version, changelog=f"## {version}\n")) == []


def test_the_released_chart_names_its_version_its_registry_and_every_digest() -> None:
    checked_in = (chart.FOLDER / "Chart.yaml").read_text()
    digests = {"operator:1.2.3": DIGEST, "yoloserve:1.2.3-cpu": DIGEST}
    released = chart.metadata(checked_in, "1.2.3", "r.example.com/a", digests)
    assert (released["version"], released["appVersion"]) == ("1.2.3", "1.2.3")
    assert released["kubeVersion"] == yaml.safe_load(checked_in)["kubeVersion"]
    notes = released["annotations"]
    assert notes["yolofleet.io/registry"] == "r.example.com/a"
    assert json.loads(notes["yolofleet.io/digests"]) == digests
    assert yaml.safe_load(notes["artifacthub.io/images"]) == [
        {"name": "operator", "image": f"r.example.com/a/operator:1.2.3@{DIGEST}"},
        {"name": "yoloserve-cpu", "image": f"r.example.com/a/yoloserve:1.2.3-cpu@{DIGEST}"},
    ]
    assert notes["artifacthub.io/license"] == "Apache-2.0"


def packed(*names: str, mtime: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(name), mtime
            archive.addfile(member, io.BytesIO(name.encode()))
    return out.getvalue()


def test_a_chart_packed_twice_is_the_same_bytes() -> None:
    one = chart.repacked(packed("a/Chart.yaml", "a/values.yaml", mtime=1), made=MADE)
    two = chart.repacked(packed("a/values.yaml", "a/Chart.yaml", mtime=2), made=MADE)
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        assert archive.getnames() == ["a/Chart.yaml", "a/values.yaml"]
        member = archive.extractfile("a/values.yaml")
        assert member
        assert member.read() == b"a/values.yaml"


DPKG = """Package: zlib1g
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1:1.2.13.dfsg-1
Description: compression library
 Version: of nothing

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
TOLD = json.dumps(
    {
        "python": "3.12.8",
        "system": "debian-12",
        "dpkg": DPKG,
        "packages": [["PyYAML", "6.0.2", "MIT"], ["aiohttp", "3.14.5", "Apache-2.0 AND MIT"]],
        "beside": [["pip", "25.0", ""], ["pyyaml", "6.0.2", ""]],
    }
)
INVENTORY = Inventory.parse(TOLD)


def test_a_bill_of_materials_is_valid_and_names_what_pip_and_dpkg_installed() -> None:
    text = sbom.document("r.example.com/a/operator:1.2.3", DIGEST, INVENTORY, made=MADE)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert {part["purl"] for part in bill["components"]} == {
        "pkg:generic/python@3.12.8",
        "pkg:pypi/pyyaml@6.0.2",
        "pkg:pypi/aiohttp@3.14.5",
        "pkg:pypi/pip@25.0",
        "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12",
    }
    assert bill["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    assert bill["metadata"]["component"]["version"] == "1.2.3"
    [whole] = [row for row in bill["dependencies"] if row.get("dependsOn")]
    assert len(whole["dependsOn"]) == len(bill["components"])


def test_the_same_image_has_the_same_bill() -> None:
    one, two = (
        sbom.document("r.example.com/operator:1.2.3", DIGEST, INVENTORY, made=MADE)
        for _ in range(2)
    )
    assert one == two


def test_a_package_that_the_lock_does_not_have_at_that_version_is_told() -> None:
    lock = "pyyaml==6.0.2 \\\n    --hash=sha256:0\nnumpy==2.3.0 ; python_version < '3.12' \\\n"
    assert sbom.beyond(lock, [Package("PyYAML", "6.0.2"), Package("numpy", "2.3.0")]) == []
    strange = [Package("PyYAML", "6.0.3"), Package("evil", "1")]
    assert sbom.beyond(lock, strange) == ["PyYAML==6.0.3", "evil==1"]


def test_each_image_has_a_lock_modules_and_a_target_of_its_dockerfile() -> None:
    for image in making.IMAGES.values():
        lock = (making.REPOSITORY / image.lock).read_text()
        for module in image.modules:
            ours = module.startswith(("yolofleet.", "yoloserve."))
            assert find_spec(module) if ours else re.search(rf"^{module}(-gpu)?==", lock, re.M)
        dockerfile = (making.REPOSITORY / image.product.dockerfile).read_text()
        assert f"COPY {image.lock} " in dockerfile
        assert not image.product.target or f" AS {image.product.target}\n" in dockerfile
    assert making.IMAGES["torch"].name("1.2.3") == "yoloserve:1.2.3-torch"


def test_what_git_ignores_and_an_image_would_hold_counts_as_a_change() -> None:
    ignored = "operator/yolofleet/__pycache__/a.pyc\nserving_image/yoloserve/build/token\n"
    assert making.strays(ignored) == ["!! serving_image/yoloserve/build/token"]
    assert making.strays("") == []


def test_a_tree_whose_changes_nobody_can_list_is_not_taken_for_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '#!/bin/sh\ncase "$*" in *" log "*) echo c 2026-01-02;; *) exit 128;; esac\n'
    (tmp_path / "git").write_text(script)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Refused, match="`git status` fails"):
        making.Commit.here()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Return git for a checkout of one commit, and of nobody's settings."""
    for scope in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{scope}", str(tmp_path / scope))
    monkeypatch.setattr(making, "REPOSITORY", tmp_path / "checkout")
    (tmp_path / "gpg").write_text(GPG)
    (tmp_path / "gpg").chmod(0o755)
    (tmp_path / "checkout/operator").mkdir(parents=True)
    (tmp_path / "checkout/operator/a.py").write_text("a = 1\n")

    def git(*command: str) -> None:
        subprocess.run(["git", "-C", tmp_path / "checkout", *command], check=True)

    git("init", "--quiet")
    for name, value in {
        "user.name": "a",
        "user.email": "a",
        "gpg.program": tmp_path / "gpg",
    }.items():
        git("config", name, str(value))
    git("add", ".")
    git("commit", "--quiet", "--gpg-sign", "--message=a")
    return git


GPG = """#!/bin/sh
cat > /dev/null
case "$*" in
  *verify*) echo 'gpg: Good signature' >&2; echo '[GNUPG:] GOODSIG 0 a';;
  *) echo signed; echo '[GNUPG:] SIG_CREATED ' >&2;;
esac
"""


def test_a_commit_is_read_whatever_git_is_told_to_say_beside_it(checkout: Git) -> None:
    checkout("config", "log.showSignature", "true")
    assert re.fullmatch("[0-9a-f]{40}", making.Commit.here().id)
    assert making.Commit.here().changed == ""


def test_a_file_that_git_is_told_not_to_list_is_a_change(checkout: Git) -> None:
    checkout("config", "status.showUntrackedFiles", "no")
    (making.REPOSITORY / "operator/token").touch()
    assert making.Commit.here().changed == "?? operator/token"


@pytest.mark.parametrize("unwatched", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_is_told_not_to_watch_is_a_change(checkout: Git, unwatched: str) -> None:
    checkout("update-index", unwatched, "operator/a.py")
    (making.REPOSITORY / "operator/a.py").write_text("a = 2\n")
    assert "operator/a.py" in making.Commit.here().changed


class Tool:
    """A program on the PATH that says what it is told to say."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "docker"

    def says(self, text: str, *, status: int, error: str = "") -> None:
        (self.path.parent / "out").write_text(text)
        (self.path.parent / "err").write_text(error)
        here = self.path.parent
        self.path.write_text(f"#!/bin/sh\ncat {here}/out; cat {here}/err >&2; exit {status}\n")
        self.path.chmod(0o755)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(registry, "identity", lambda _: "sha256:ours")
    return Tool(tmp_path)


def told(config: str) -> str:
    entry = {
        "Descriptor": {"digest": "sha256:m"},
        "SchemaV2Manifest": {"config": {"digest": config}},
    }
    return json.dumps(entry)


def test_an_image_that_is_not_there_or_is_the_same_may_be_pushed(docker: Tool) -> None:
    docker.says("", status=1, error="no such manifest: r.example.com/a:1")
    registry.refuse_others("r.example.com/a:1")
    docker.says(told("sha256:ours"), status=0)
    registry.refuse_others("r.example.com/a:1")


def test_another_image_of_that_name_is_not_overwritten(docker: Tool) -> None:
    docker.says(told("sha256:theirs"), status=0)
    with pytest.raises(Refused, match="never overwritten"):
        registry.refuse_others("r.example.com/a:1")


@pytest.mark.parametrize(
    "error",
    [
        "denied: requested access to the resource is denied",
        'exec: "docker-credential-pass": executable file not found in $PATH',
    ],
)
def test_a_registry_that_does_not_say_is_not_taken_for_an_empty_one(
    docker: Tool, error: str
) -> None:
    docker.says("", status=1, error=error)
    with pytest.raises(Refused, match="Nobody can tell"):
        registry.refuse_others("r.example.com/a:1")


def test_sums_are_those_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "a.yaml").write_text("a")
    (tmp_path / "b").write_text("b")
    lines = making.sums(tmp_path).splitlines()
    assert [line.split("  ")[1] for line in lines] == ["b", "crds/a.yaml"]
    assert lines[0].startswith("3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d")


ENGINE = """#!/bin/sh
echo "docker $*" >> "$FOLDER/told"
case "$1 $2" in
  "manifest inspect") echo "no such manifest" >&2; exit 1;;
  "image inspect") for image; do :; done; echo "[\\"${image%:*}@sha256:a\\"]";;
  "run --rm") shift 6; eval "$ANSWER";;
esac
"""
HELM = """#!/bin/sh
case "$1" in
  show) echo "not found" >&2; exit 1;;
  lint) ${LINTS:-true};;
  package) tar -czf "$4/yolofleet.tgz" -C "${2%/*}" yolofleet;;
  push) echo "helm $*" >> "$FOLDER/told"; ls "${2%/*}" > "$FOLDER/seen";;
esac
"""


class Release:
    """A release of images that an engine of two lines makes, and what it was told."""

    version, to = "9.9.9-rc.1", "r.example.com/a"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "dist" / self.version

    def make(self) -> Listing:
        return making.make(self.version, self.to, [], self.out)

    def told(self, *words: str) -> list[str]:
        lines = (self.folder / "told").read_text().splitlines()
        return [word for line in lines for word in words if word in line]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    for program, text in {"bin/docker": ENGINE, "cache/tools/helm": HELM}.items():
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    (tmp_path / "inventory").write_text(TOLD)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("ANSWER", 'cat "$FOLDER/inventory"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("YOLOFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(making.mode, "current", lambda: Mode.PULL)
    monkeypatch.setattr(making.released, "provide", lambda _: None)
    monkeypatch.setattr(making.Commit, "here", lambda: making.Commit("c" * 40, MADE, ""))
    monkeypatch.setattr(sbom, "beyond", lambda *_: [])
    return Release(tmp_path)


def test_nothing_is_pushed_before_every_image_was_started(release: Release) -> None:
    listing = release.make()
    assert release.told("docker build ", "docker run", "docker push", "helm push") == [
        *("docker build ", "docker run") * 2,
        *("docker push",) * 2,
        "helm push",
    ]
    assert listing.images.keys() == {"operator:9.9.9-rc.1", "yoloserve:9.9.9-rc.1-cpu"}


def test_an_image_that_does_not_start_ends_the_release_before_anything_is_pushed(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSWER", 'echo "$*" >&2; exit 1')
    with pytest.raises(WrongResult, match=r"operator:9.* does not start: .*\n- yolofleet.__main__"):
        release.make()
    assert release.told("push") == []


def test_an_image_tells_what_is_in_it_if_its_modules_import(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSWER", 'exec python3 "$@"')
    # `this` prints as it is imported, as some runtimes do.
    assert "pytest" in {package.name for package in sbom.read("a:1", ("json", "this")).packages}
    with pytest.raises(WrongResult, match=r"No module named 'json.nothing'"):
        sbom.read("a:1", ("json", "json.nothing"))


def test_what_an_image_holds_beside_its_lock_ends_the_release_before_anything_is_pushed(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "beyond", lambda *_: ["evil==1"])
    with pytest.raises(WrongResult, match=r"operator.txt does not: evil==1"):
        release.make()
    assert release.told("push") == []


def test_a_chart_that_helm_refuses_ends_the_release_before_anything_is_pushed(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINTS", "false")
    with pytest.raises(StepFailed, match="lint"):
        release.make()
    assert release.told("push") == []


def test_the_chart_is_pushed_when_all_of_dist_is_there(release: Release) -> None:
    release.make()
    assert (release.folder / "seen").read_text().split() == sorted(
        path.name for path in release.out.iterdir()
    )


def test_one_release_is_made_at_a_time(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    def here() -> making.Commit:
        with (
            (release.folder / "cache/locks/release").open() as held,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise Refused("nothing to release")

    monkeypatch.setattr(making.Commit, "here", here)
    with pytest.raises(Refused, match="nothing to release"):
        release.make()
