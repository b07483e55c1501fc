"""The operator's page of the fleet in a real browser, where the other page is tried in one."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from controlplane import ports
from yolofleet.fleet.serving import serve_page
from yolofleet.fleet.view import fleet

pytestmark = pytest.mark.browser

WAIT_S = 60
AXE = (files("axe_core_python") / "axe.min.js").read_text()
RUN_AXE = "const done = arguments[0]; axe.run().then((told) => done(told.violations))"
LONG = "https://models.example.com/warehouse/north/gate-v7-int8-quantised-without-nms.onnx"


def revision(name: str, role: str, weight: int, ready: int, desired: int, model: str) -> Any:
    numbers = {"weight": weight, "ready": ready, "desired": desired}
    return {"name": name, "role": role, "model": model, **numbers}


def condition(kind: str, status: str, reason: str, message: str = "") -> Any:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def detector(
    name: str, *conditions: Any, revisions: Any = (), spec: Any = None, **status: Any
) -> Any:
    namespace, _, name = name.partition("/")
    told = {"observedGeneration": 1, "conditions": list(conditions), "revisions": list(revisions)}
    return {
        "metadata": {"name": name, "namespace": namespace, "generation": 1},
        "spec": spec or {},
        "status": told | status,
    }


FINE = (
    condition("Ready", "True", "Serving"),
    condition("Released", "True", "Released"),
    condition("Stalled", "False", "NotStalled"),
    condition("Progressing", "False", "Settled"),
)


def a_fleet() -> list[Any]:
    """Return detectors of each kind that there is."""
    approve = (
        "step 2 of 3, 25 % to gate-56544287: waits for approval. To go on: kubectl patch yd gate -n"
        ' shop --type merge -p \'{"spec":{"rollout":{"approved":{"revision":"gate-56544287"}}}}\''
    )
    missing = "needs 2 nvidia.com/gpu, and 1 is free (held by shop/gate): add a node"
    checks = [
        {"name": name, "verdict": verdict}
        for name, verdict in (("kept", "Pass"), ("errors", "Pass"), ("latency", "Inconclusive"))
    ]
    return [
        detector(
            "shop/gate",
            FINE[0],
            condition("Released", "False", "AwaitingApproval", approve),
            condition("Progressing", "True", "AwaitingApproval", approve),
            revisions=[
                revision("gate-05bb7f85", "Stable", 75, 3, 3, "demo://shapes"),
                revision("gate-56544287", "Target", 25, 1, 1, "demo://shapes-v2"),
            ],
            spec={"autoscaling": {"minReplicas": 2, "maxReplicas": 8}},
            ready="3/3",
            url="http://gate.example.com",
            rollout={
                "revision": "gate-56544287",
                "step": 2,
                "steps": 3,
                "weight": 25,
                "since": "2030-01-01T00:00:00Z",
            },
            analysis={"revision": "gate-56544287", "said": "Waiting: latency", "checks": checks},
            autoscaling={
                "provider": "builtin",
                "floor": 3,
                "demand": 2.6,
                "reason": "11 in flight, 4 each",
            },
        ),
        detector(
            "plant-7/press",
            condition("Ready", "False", "Missing", missing),
            condition("Stalled", "True", "Missing", missing),
            condition("Progressing", "False", "Missing", missing),
            revisions=[revision("press-9d2c41aa", "Stable", 100, 0, 2, LONG)],
            ready="0/2",
        ),
        detector("plant-7/belt"),
        *(
            detector(
                f"plant-{number}/camera-{number:02}",
                *FINE,
                revisions=[revision(f"camera-{number:02}-1a2b3c4d", "Stable", 100, 2, 2, LONG)],
                ready="2/2",
                url=f"http://camera-{number:02}.plant-{number}.svc",
            )
            for number in range(1, 10)
        ),
    ]


class Shown:
    """What is served to the browser, and may be changed."""

    def __init__(self) -> None:
        self.detectors = a_fleet()
        self.url = self.doubt = ""

    def __call__(self) -> Any:
        return {"detectors": fleet(self.detectors), "doubt": self.doubt}


@pytest.fixture
async def shown() -> AsyncIterator[Shown]:
    shown = Shown()
    runner = await serve_page(shown, 0)
    shown.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield shown
    await runner.cleanup()


async def in_browser(looks: Callable[..., Any], *arguments: Any) -> Any:
    """Let a browser look, while the page is served on this loop."""
    return await asyncio.to_thread(looks, *arguments)


def open_page(browser: webdriver.Chrome, url: str, width: int = 1920) -> None:
    browser.set_window_size(width, 1080)
    browser.get(url)
    until(browser, lambda: len(browser.find_elements(By.TAG_NAME, "article")) == 12)


def until(browser: webdriver.Chrome, true: Callable[[], Any]) -> None:
    WebDriverWait(browser, WAIT_S).until(lambda _: true())


async def test_it_shows_every_detector_and_who_wants_help_first(
    browser: webdriver.Chrome, shown: Any
) -> None:
    def look() -> None:
        open_page(browser, shown.url)
        heads = [each.text for each in browser.find_elements(By.TAG_NAME, "h2")]
        assert heads[:3] == ["plant-7/press", "shop/gate", "plant-7/belt"]
        counts = browser.find_element(By.ID, "counts").text.split("\n")
        assert counts == [
            "1 wrong",
            "1 waiting for a person",
            "1 not seen yet",
            "9 fine",
        ]
        press, gate = browser.find_elements(By.TAG_NAME, "article")[:2]
        assert press.text.count("needs 2 nvidia.com/gpu") == 1
        for words in (
            "gate-56544287 demo://shapes-v2 Target 25 % 1/1",
            "Step 2 of 3: 25 % to gate-56544287, since ",
            "latency Inconclusive",
            "2 to 8 replicas, the load asks for 2.6, at least 3 now (11 in flight, 4 each)",
            "To go on: kubectl patch yd gate",
        ):
            assert words in " ".join(gate.text.split())
        problems = [log for log in browser.get_log("browser") if log["level"] == "SEVERE"]
        assert problems == []

    await in_browser(look)


@pytest.mark.parametrize("width", [1920, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_and_nothing_is_cut_off(
    browser: webdriver.Chrome, shown: Any, width: int, scheme: str
) -> None:
    def look() -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        size = {"width": width, "height": 1080, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            open_page(browser, shown.url, width)
            browser.execute_script(AXE)
            violations = browser.execute_async_script(RUN_AXE)
            assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    await in_browser(look)


async def test_it_follows_by_itself_and_leaves_alone_what_has_not_changed(
    browser: webdriver.Chrome, shown: Any
) -> None:
    def look() -> None:
        open_page(browser, shown.url)
        browser.execute_script(
            "document.querySelectorAll('article').forEach((each) => { each.dataset.old = 'yes' })"
        )
        belt = next(each for each in shown.detectors if each["metadata"]["name"] == "belt")
        belt["status"] |= {"conditions": list(FINE), "ready": "1/1"}
        del shown.detectors[1]
        until(browser, lambda: "10 fine" in browser.find_element(By.ID, "counts").text)
        cards = browser.find_elements(By.TAG_NAME, "article")
        assert len(cards) == 11
        new = [each for each in cards if not each.get_attribute("data-old")]
        assert [each.find_element(By.TAG_NAME, "h2").text for each in new] == ["plant-7/belt"]

    await in_browser(look)


async def test_an_operator_that_may_not_hear_of_all_says_so_and_goes_on_showing(
    browser: webdriver.Chrome, shown: Any
) -> None:
    def look() -> None:
        open_page(browser, shown.url)
        status = browser.find_element(By.ID, "status")
        until(browser, lambda: status.text == "Live")
        shown.doubt = "the watch of Pod is deaf"
        until(browser, lambda: status.text == f"What is shown may be old: {shown.doubt}")
        assert status.get_attribute("class") == "lost"
        del shown.detectors[-1]
        until(browser, lambda: len(browser.find_elements(By.TAG_NAME, "article")) == 11)
        shown.doubt = ""
        until(browser, lambda: status.text == "Live")

    await in_browser(look)


async def test_a_time_is_told_with_its_day(browser: webdriver.Chrome, shown: Any) -> None:
    def look() -> None:
        open_page(browser, shown.url)
        gate = browser.find_elements(By.TAG_NAME, "article")[1].text
        assert re.search(r"Step 2 of 3.*since .*\b20\d\d\b", gate), gate

    await in_browser(look)


async def test_the_filter_is_reached_by_keyboard_and_finds_by_name(
    browser: webdriver.Chrome, shown: Any
) -> None:
    def look() -> None:
        open_page(browser, shown.url)
        reached = []
        for _ in range(2):
            ActionChains(browser).send_keys(Keys.TAB).perform()
            reached.append(browser.switch_to.active_element.accessible_name)
        assert reached == ["Skip to the detectors", "Filter"]
        browser.switch_to.active_element.send_keys("plant-7")
        until(browser, lambda: len(browser.find_elements(By.TAG_NAME, "article")) == 3)
        browser.switch_to.active_element.send_keys("none")
        assert "No detector has that" in browser.find_element(By.ID, "detectors").text

    await in_browser(look)


async def test_an_operator_that_went_away_is_told_and_what_is_shown_stays(
    browser: webdriver.Chrome,
) -> None:
    (port,) = ports.reserve(1)
    runner = await serve_page(Shown(), port)
    await in_browser(open_page, browser, f"http://127.0.0.1:{port}/")
    await runner.cleanup()

    def status() -> str:
        return browser.find_element(By.ID, "status").text

    def look() -> None:
        until(browser, lambda: "is the port-forward up? What is shown is of " in status())
        assert len(browser.find_elements(By.TAG_NAME, "article")) == 12
        browser.get_log("browser")  # it says there that nobody answered

    await in_browser(look)
    again = await serve_page(Shown(), port)
    await in_browser(until, browser, lambda: status() == "Live")
    await again.cleanup()
