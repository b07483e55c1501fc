"""Build commands out of the Go module proxy, without any source checkout.

`go install module@version` refuses modules that have `replace` lines, as Kubernetes and Istio do.
So a small module of our own imports the commands, and carries the replacements they need.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.cache import artefact, content_hash
from cluster.errors import NotPossibleHere, StepFailed
from cluster.paths import HERE
from cluster.steps import again, log_path, run, step


@dataclass(frozen=True, slots=True)
class Module:
    """A published Go module and the commands wanted from it."""

    name: str
    path: str
    version: str
    packages: tuple[str, ...] = ()  # commands of the module, by import path
    main: str = ""  # or: the name of a source file in `go/` that is the command
    replacements: tuple[tuple[str, str], ...] = ()  # (module, version)
    staging_version: str = ""  # for the module's own `=> ./staging/…` replacements
    checksum: str = ""  # of a module that the checksum database does not list, as in go.sum
    pinned: bool = False  # what its own go.mod replaces and its go.sum has seen applies here too
    like: Module | None = None  # take this module's dependencies, to share what is compiled
    tags: str = ""
    stamps: tuple[str, ...] = ()  # linker `-X` settings, `package.variable=value`
    tidy_may_complain: bool = False  # imports that only its tests need cannot be resolved
    cost: str = ""  # why compiling takes long

    @property
    def key(self) -> str:
        """Name the module with its version and with whatever else changes what is built."""
        settings = repr((self.replacements, self.staging_version, self.tags, self.stamps))
        shared = [self.like.key] if self.like else []
        pinned = ["pinned"] if self.pinned else []
        recipe = content_hash([], root=HERE, extra=[settings, _sources(self), *shared, *pinned])
        return f"{self.name}-{self.version}-{recipe}"

    @property
    def environment(self) -> dict[str, str]:
        """Spare the checksum database a question about a module whose checksum is pinned here."""
        unlisted = {"GONOSUMDB": self.path} if self.checksum else {}
        return {"CGO_ENABLED": "0", **unlisted}


def require_go() -> str:
    """Return the go command, or say how to get one."""
    if found := shutil.which("go"):
        return found
    raise NotPossibleHere(
        "Go is not installed, and this has to be compiled. Install Go 1.25 or newer, or (for the"
        " bare control plane) set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd,"
        " kubectl and kube-controller-manager."
    )


def source(module: Module) -> Path:
    """Download a module and return its (read-only) folder: charts and settings lie there."""
    return Path(_download(module)["Dir"])


def binary(module: Module, package: str = "") -> Path:
    """Return one built command of a module; without `package`, the one in `main`."""
    name = package.rsplit("/", 1)[-1] or module.name

    def build(part: Path) -> None:
        workspace = _workspace(module)
        settings = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in module.stamps)])
        with step(f"compile {name} {module.version}", module.cost):
            run(
                # No -trimpath: it writes the version that a replacement replaces into packages,
                # so what two workspaces agree on (`like`) would be compiled for each of them.
                [require_go(), "build", "-tags", module.tags, "-ldflags", settings,
                 "-o", part, package or "."],
                log=f"go-{module.name}",
                cwd=workspace,
                env=module.environment,
            )  # fmt: skip

    return artefact(f"bin/{module.key}/{name}", build)


def own(name: str) -> Path:
    """Return the built command of a source file in `go/` that needs no module."""
    file = HERE / "go" / f"{name}.go"

    def build(part: Path) -> None:
        with step(f"compile {name}"):
            run(
                [require_go(), "build", "-trimpath", "-ldflags", "-s -w", "-o", part, file],
                log="go-own",
                env={"CGO_ENABLED": "0"},
            )

    return artefact(f"bin/{name}-{content_hash([file], root=HERE)}/{name}", build)


def _download(module: Module) -> dict[str, str]:
    answer: dict[str, str] = json.loads(again(lambda: _ask_proxy(module)))
    if module.checksum and answer["Sum"] != module.checksum:
        raise NotPossibleHere(
            f"The module proxy served {module.path} {module.version} with checksum"
            f" {answer['Sum']}, expected {module.checksum}: do not use it."
        )
    return answer


def _ask_proxy(module: Module) -> str:
    asked = [require_go(), "mod", "download", "-json", f"{module.path}@{module.version}"]
    done = subprocess.run(
        asked,
        cwd="/",  # outside of any module
        env={**os.environ, **module.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log = log_path(f"go-{module.name}")
        log.write_text(done.stdout + done.stderr)
        raise StepFailed(" ".join(asked), f"exit status {done.returncode}", log)
    return done.stdout


def _sources(module: Module) -> str:
    """Write the one Go file of the workspace."""
    if module.main:
        return (HERE / "go" / module.main).read_text()
    imports = "".join(f'\t_ "{package}"\n' for package in module.packages)
    return f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n"


def go_mod(module: Module, upstream: str, *, resolved: str = "") -> str:
    """Write a go.mod that requires `module`; `upstream` is the module's own go.mod.

    The versions in `resolved`, the go.mod of another workspace, win over those that it asks for.
    """
    staged = re.findall(r"^\s*(\S+) => \./staging/", upstream, re.MULTILINE)
    shared = re.findall(r"^(?:require )?\s*(\S+) (v\S+)(?: // indirect)?$", resolved, re.MULTILINE)
    moved = _replaced(resolved)
    replaced = {
        **dict.fromkeys(staged, module.staging_version),
        **dict(_replaced(upstream) if module.pinned else ()),
        **dict(shared),
        **dict(moved),
        **dict(module.replacements),
    }
    go = re.search(r"^go \S+$", upstream, re.MULTILINE)
    lines = [
        f"module cluster.local/{module.name}",
        go.group() if go else "go 1.24",
        f"require {module.path} {module.version}",
        *(f"replace {path} => {path} {version}" for path, version in replaced.items()),
    ]
    return "\n\n".join(lines) + "\n"


def _replaced(go_mod: str) -> list[tuple[str, str]]:
    return re.findall(r"^(?:replace )?\s*(\S+) => \S+ (v\S+)$", go_mod, re.MULTILINE)


def _workspace(module: Module) -> Path:
    def resolve(part: Path) -> None:
        with step(f"resolve the dependencies of {module.name} {module.version}", "downloads"):
            upstream = Path(_download(module)["GoMod"]).read_text()
            part.mkdir()
            if module.pinned:
                shutil.copyfile(
                    source(module) / "go.sum", part / "go.sum"
                )  # some are listed nowhere else
            shared = (_workspace(module.like) / "go.mod").read_text() if module.like else ""
            (part / "go.mod").write_text(go_mod(module, upstream, resolved=shared))
            (part / "main.go").write_text(_sources(module))
            again(lambda: _tidy(module, part))

    return artefact(f"gomod/{module.key}", resolve)


def _tidy(module: Module, workspace: Path) -> None:
    go, log = require_go(), f"go-{module.name}"
    forgiving = ["-e"] if module.tidy_may_complain else []
    run([go, "mod", "tidy", *forgiving], log=log, cwd=workspace, env=module.environment)
    # `-e` forgives a download that failed as well: what is compiled has to be complete.
    run(
        [go, "list", "-deps", "-tags", module.tags, "-f", '{{""}}', *(module.packages or ["."])],
        log=log,
        cwd=workspace,
        env=module.environment,
    )
