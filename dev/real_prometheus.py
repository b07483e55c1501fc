"""A real Prometheus, as a process that ends with the block; and its own check of rules."""

import contextlib
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster import assets
from controlplane import ports
from controlplane.kube import PATIENCE_S

ANSWERS_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Whom it scrapes. honest: what the target says of itself goes before `labels`."""

    address: str
    path: str = "/metrics"
    labels: Mapping[str, str] = field(default_factory=dict)
    honest: bool = False

    def job(self, name: str) -> dict[str, Any]:
        """Return the job that scrapes it."""
        return {
            "job_name": name,
            "metrics_path": self.path,
            "honor_labels": self.honest,
            "static_configs": [{"targets": [self.address], "labels": dict(self.labels)}],
        }


@dataclass(frozen=True, slots=True)
class RealPrometheus:
    """One that runs, and can be asked."""

    url: str
    targets: int
    process: subprocess.Popen[bytes]

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the series that answer `query` now. Raises `ValueError` with what is wrong."""
        found: list[dict[str, Any]] = self.ask("query", query=query)["result"]
        return found

    def ask(self, api: str, **form: str) -> Any:
        """Return the data that an API answers."""
        data = urllib.parse.urlencode(form).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{api}", data, ANSWERS_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None

    def scraped_all(self) -> bool:
        """Say whether each target has answered. One that is busy may be late for a scrape."""
        return [each["health"] for each in self._active()] == ["up"] * self.targets

    def _active(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v1/targets", timeout=ANSWERS_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["activeTargets"]
        return found

    def await_scrapes(self) -> None:
        """Wait until each target has answered, and what it told can be asked for."""
        try:
            _await(self.scraped_all, "some targets do not answer")
        except TimeoutError as error:
            said = "; ".join(each["lastError"] for each in self._active())
            raise TimeoutError(f"{error}: {said}") from None


@contextlib.contextmanager
def pages(told: Mapping[str, Callable[[], str]]) -> Iterator[str]:
    """Serve these texts, by path, as a target does; yields the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = told.get(self.path)
            self.send_response(200 if page else 404)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it has given up waiting
                self.wfile.write(page().encode() if page else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each scrape."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def running(
    folder: Path, targets: Iterable[Target], *, every: str = "1s", rules: Path | None = None
) -> Iterator[RealPrometheus]:
    """Run one that scrapes `targets`, and keeps what it has below `folder`."""
    jobs = [target.job(f"target-{number}") for number, target in enumerate(targets)]
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "scrape_configs": jobs,
        "rule_files": [str(rules)] if rules else [],
    }
    file, log = folder / "prometheus.json", folder / "prometheus.log"
    file.write_text(json.dumps(config))
    [port] = ports.reserve(1)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                assets.prometheus("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--scrape.discovery-reload-interval=100ms",  # in place of 5 s
            ],
            stdout=output,
            stderr=output,
        )
    found = RealPrometheus(f"http://127.0.0.1:{port}", len(jobs), process)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"Prometheus ended:\n{log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"{found.url}/-/ready", timeout=ANSWERS_S):
                return True
        except OSError:  # nobody listens yet, or it says that it is not ready
            return False

    try:
        _await(ready, "Prometheus does not become ready")
        yield found
    finally:
        process.kill()
        process.wait()


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; what it says is in the result, whether it complains or not."""
    command = [assets.prometheus("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
