"""The try-it page in a real browser: choose a picture, see its boxes."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from yoloserve.detections.postprocess import Detections
from yoloserve.shadow.pairs import Found, difference

pytestmark = pytest.mark.browser

WAIT_S = 60

COLOUR_AT = """
const [x, y] = arguments;
return [...document.getElementById('picture').getContext('2d').getImageData(x, y, 1, 1).data]
"""


@pytest.fixture(scope="module")
def url(run_server, make_model) -> str:
    """A server that sees a circle and a star in everything."""
    server = run_server(model=make_model(), name="gate", revision="gate-7c9f1b2a")
    return server.logged("ready")["url"]


@pytest.fixture
def page(browser: webdriver.Chrome, url: str) -> Iterator[webdriver.Chrome]:
    browser.get(url)
    yield browser
    problems = [log["message"] for log in browser.get_log("browser") if log["level"] == "SEVERE"]
    assert problems == []


@pytest.fixture
def picture_file(jpeg: bytes, tmp_path: Path) -> Path:
    (tmp_path / "street.jpg").write_bytes(jpeg)
    return tmp_path / "street.jpg"


def status(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "status").text


def wait_for(page: webdriver.Chrome, told: str) -> None:
    WebDriverWait(page, WAIT_S).until(
        lambda _: told in status(page), f"{told!r}, not {status(page)!r}"
    )


def choose(page: webdriver.Chrome, file: Path) -> None:
    page.find_element(By.ID, "choose").send_keys(str(file))


def test_a_chosen_picture_is_shown_with_its_boxes(page, picture_file) -> None:
    choose(page, picture_file)
    wait_for(page, "2 objects: 1 × circle, 1 × star")
    canvas = page.find_element(By.ID, "picture")
    assert canvas.is_displayed()
    assert (canvas.get_attribute("width"), canvas.get_attribute("height")) == ("160", "90")
    assert "2 objects" in canvas.get_attribute("aria-label")
    # The circle's box goes from (55, 32.5) to (105, 57.5): its right edge has another colour than
    # the flat picture has a few pixels further on, and the middle of the box has the picture's.
    edge = page.execute_script(COLOUR_AT, 105, 50)
    beyond = page.execute_script(COLOUR_AT, 112, 50)
    inside = page.execute_script(COLOUR_AT, 95, 50)
    assert edge != beyond
    assert inside == beyond


def test_what_was_found_is_told_in_words_and_numbers(page, picture_file) -> None:
    choose(page, picture_file)
    wait_for(page, "2 objects")
    rows = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#rows tr")]
    assert rows == ["circle 0.90 55, 33 – 105, 58", "star 0.60 20, 55 – 40, 75"]
    assert page.find_element(By.ID, "revision").text == "gate-7c9f1b2a"
    assert page.find_element(By.ID, "model").text == "gate 1.2"
    assert float(page.find_element(By.ID, "total").text) > 0
    assert float(page.find_element(By.ID, "round-trip").text) > 0


def test_the_slider_asks_again_and_works_by_keyboard(page, picture_file) -> None:
    choose(page, picture_file)
    wait_for(page, "2 objects")
    page.find_element(By.ID, "confidence").send_keys(Keys.HOME)
    wait_for(page, "3 objects: 1 × circle, 1 × star, 1 × square")
    page.find_element(By.ID, "confidence").send_keys(Keys.END)
    wait_for(page, "Nothing found above this confidence.")
    assert page.find_element(By.ID, "confidence-shown").text == "0.95"
    assert not page.find_element(By.ID, "found").is_displayed()


def test_a_file_that_is_no_picture_is_told(page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    choose(page, tmp_path / "notes.jpg")
    wait_for(page, "cannot show that file")


def test_the_webcam_is_watched_until_it_is_stopped(page) -> None:
    button = page.find_element(By.ID, "webcam")
    button.click()
    wait_for(page, "2 objects")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page) -> None:
    reached = []
    for _ in range(7):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element.accessible_name)
    assert reached == [
        "Skip to choosing a picture",
        "API",
        "Metrics",
        "Choose a picture",
        "Try the sample",
        "Use a webcam",
        "Confidence above",
    ]


def test_the_api_page_is_drawn_without_internet(page) -> None:
    page.find_element(By.LINK_TEXT, "API").click()
    found = (By.ID, "operations-detect-detect_v1_detect_post")
    WebDriverWait(page, WAIT_S).until(lambda driver: driver.find_elements(*found))
    assert "/v1/detect" in page.find_element(By.TAG_NAME, "body").text


STORED = """
return [localStorage.length, sessionStorage.length, document.cookie, location.href].join()
"""
CANARY, FRAMES_KEY = "gate-2222bbbb", "only-one-person-has-it"


async def test_where_two_revisions_differ_is_shown_to_who_types_the_key_and_it_is_not_kept(
    browser: webdriver.Chrome, serve, jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "frames").write_text(FRAMES_KEY)
    boxes = np.array([[10, 10, 60, 60]], np.float32)
    one = Detections(boxes, np.array([0.9], np.float32), np.array([0]))
    stable, canary = Found(one, ("circle",), 0.25, 0), Found(one[:0], ("circle",), 0.25, 0)
    async with serve(revision="gate-1111aaaa", frames_key_file=tmp_path / "frames") as served:
        album = served.serving.shadow.album
        album.follow(CANARY)
        album.offer(CANARY, jpeg, stable, canary, difference(stable, canary).apart)
        server = uvicorn.Server(uvicorn.Config(served.app, lifespan="off", log_config=None))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve([listening]))
            try:
                port = listening.getsockname()[1]
                await asyncio.to_thread(_look, browser, f"http://127.0.0.1:{port}/")
            finally:
                server.should_exit = True
                await serving


def _look(browser: webdriver.Chrome, url: str) -> None:
    browser.get(url)
    browser.find_element(By.CSS_SELECTOR, "#differences summary").click()
    told = browser.find_element(By.ID, "frames-status")
    key = browser.find_element(By.ID, "frames-key")
    key.send_keys("somebody-guesses-one", Keys.ENTER)
    WebDriverWait(browser, WAIT_S).until(lambda _: "the key is not the one" in told.text)
    key.send_keys(FRAMES_KEY)
    browser.find_element(By.ID, "show-frames").click()
    WebDriverWait(browser, WAIT_S).until(
        lambda _: browser.find_elements(By.CSS_SELECTOR, "#frames img")
    )
    assert "1 picture in pod " in told.text
    assert f"(gate-1111aaaa) on which {CANARY} differs most" in told.text
    picture = browser.find_element(By.CSS_SELECTOR, "#frames img")
    assert picture.is_displayed()
    assert "Lost: 1 × circle" in picture.get_attribute("alt")
    assert "Lost: 1 × circle" in browser.find_element(By.ID, "frames").text
    assert key.get_attribute("value") == ""
    assert browser.execute_script(STORED) == f"0,0,,{url}"
    browser.get_log("browser")  # it says there that the first key was refused


ASK = """
const [url, key, answer] = arguments
const headers = {"X-Camera-Id": "gate", Authorization: "Bearer " + key}
fetch(url + "v1/detect", {method: "POST", headers, credentials: "include", body: "no picture"})
  .then(async (told) => answer([told.status, told.headers.get("x-request-id"), await told.json()]))
  .catch((error) => answer([error.name]))
"""
STREAM = """
const [url, answer] = arguments, socket = new WebSocket(url.replace("http", "ws") + "v1/stream")
socket.onopen = () => { answer("open"); socket.close() }
socket.onerror = () => answer("refused")
"""


def test_another_sites_page_asks_where_it_is_named_and_nowhere_else(
    browser: webdriver.Chrome, url: str, run_server, make_model, tmp_path: Path
) -> None:
    key = "correct-horse-battery"
    (tmp_path / "keys").write_text(f"app {key}\n")
    origins = f'["{url.rstrip("/")}"]'
    guarded = run_server(
        model=make_model(), api_keys_file=tmp_path / "keys", cors_origins=origins
    ).logged("ready")["url"]
    open_ = run_server(model=make_model(), cors_origins=origins).logged("ready")["url"]
    browser.get(url + "health/live")  # stands for a page of the site that is named
    for secret, status, code in ((key, 415, "unsupported_media_type"), ("x", 401, "unauthorized")):
        told = browser.execute_async_script(ASK, guarded, secret)
        assert told[0] == status
        assert told[1]
        assert told[2]["error"]["code"] == code
    assert browser.execute_async_script(STREAM, open_) == "open"
    browser.get(url.replace("127.0.0.1", "localhost") + "health/live")  # another origin
    assert browser.execute_async_script(ASK, guarded, key) == ["TypeError"]
    assert browser.execute_async_script(STREAM, open_) == "refused"
    browser.get_log("browser")  # it says there why
