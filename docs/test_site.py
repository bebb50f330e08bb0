"""The site as its readers get it: in Chromium, by mouse and by finger, on a desk and on a phone. `make docs-test` runs this."""

import os
import shutil
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SITE = Path(__file__).parent.parent / "build" / "docs"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
DESK, PHONE = (1280, 900), (390, 844)
# Digits as strokes, in shares of the drawing's width.
DIGITS = {
    0: [[(0.5, 0.2), (0.35, 0.3), (0.3, 0.5), (0.36, 0.7), (0.5, 0.8), (0.64, 0.7), (0.7, 0.5), (0.65, 0.3), (0.5, 0.2)]],
    1: [[(0.52, 0.2), (0.5, 0.5), (0.48, 0.8)]],
    3: [[(0.35, 0.25), (0.5, 0.2), (0.64, 0.28), (0.62, 0.42), (0.48, 0.48), (0.64, 0.56), (0.66, 0.7), (0.5, 0.8),
         (0.34, 0.74)]],
    4: [[(0.36, 0.2), (0.32, 0.5), (0.66, 0.5)], [(0.62, 0.25), (0.6, 0.8)]],
    7: [[(0.32, 0.22), (0.66, 0.22), (0.56, 0.5), (0.46, 0.8)]],
}  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    assert PAGES, "There is no site yet: make docs"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    assert binary and driver, "The site is tested in Chromium. On Debian: apt install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--disable-dev-shm-usage", *["--no-sandbox"] * (os.geteuid() == 0)):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def be(browser, size):
    """A screen of this size; a phone's has a finger, too."""
    width, height = size
    metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", dict(enabled=size == PHONE))


# What a page shows of itself once all of its pictures have been asked for. What lies in a box of its own that can be scrolled
# may be wide.
INSPECT = """
const done = arguments[0];
const pictures = [...document.images].map((image) => Object.assign(image, { loading: "eager" }));
const scrolls = (element) => element !== document.documentElement && element !== document.body
    && (["auto", "scroll"].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
const wide = () => [...document.querySelectorAll("main *, header *, footer *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility() && box.width > 0 && box.right > innerWidth + 1 && !scrolls(element.parentElement);
});
Promise.allSettled(pictures.map((image) => image.decode())).then(() => done({
    missing: pictures.filter((image) => !image.naturalWidth).map((image) => image.src),
    wide: wide().map((element) => element.outerHTML.slice(0, 200)),
    overhang: document.documentElement.scrollWidth - innerWidth,
}));
"""


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_page(chromium, address, page, size):
    be(chromium, size)
    chromium.get(address + page)
    seen = chromium.execute_async_script(INSPECT)
    assert seen["missing"] == []
    assert seen["wide"] == []
    assert seen["overhang"] <= 0
    assert [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_search(chromium, address):
    be(chromium, DESK)
    chromium.get(address + "search.html?q=partial_fit")
    links = WebDriverWait(chromium, 20).until(
        lambda browser: browser.find_elements(By.CSS_SELECTOR, "#search-results .search a[href*=partial_fit]")
    )
    assert any("api/skdl.SoftmaxRegressionClassifier.html" in link.get_attribute("href") for link in links)


def draw(browser, strokes, pointer):
    """Move a pointer over the paper, pressed during each stroke."""
    paper = browser.find_element(By.CLASS_NAME, "digits-paper")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", paper)
    side = paper.size["width"]
    actions = ActionBuilder(browser, mouse=PointerInput(pointer, pointer), duration=20)
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            actions.pointer_action.move_to(paper, int((x - 0.5) * side), int((y - 0.5) * side))
            if i == 0:
                actions.pointer_action.pointer_down()
        actions.pointer_action.pointer_up()
    actions.perform()


@pytest.mark.parametrize(("size", "pointer"), [(DESK, "mouse"), (PHONE, "touch")], ids=["mouse", "finger"])
@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_recognised(chromium, address, digit, size, pointer):
    be(chromium, size)
    chromium.get(address + "index.html")
    draw(chromium, DIGITS[digit], pointer)
    widget = chromium.find_element(By.ID, "digits")
    assert widget.get_attribute("data-digit") == str(digit)
    percents = [float(output.text.removesuffix(" %")) for output in widget.find_elements(By.TAG_NAME, "output")]
    assert sum(percents) == pytest.approx(100, abs=1)  # as rounded
    assert percents[digit] == max(percents) > 50

    widget.find_element(By.TAG_NAME, "button").click()
    assert widget.get_attribute("data-digit") == ""


@pytest.mark.parametrize("digit", DIGITS)
def test_a_small_digit_in_a_corner_is_recognised(chromium, address, digit):
    be(chromium, DESK)
    chromium.get(address + "index.html")
    draw(chromium, [[(0.6 + 0.4 * x, 0.05 + 0.4 * y) for x, y in stroke] for stroke in DIGITS[digit]], "mouse")
    assert chromium.find_element(By.ID, "digits").get_attribute("data-digit") == str(digit)


class Links(HTMLParser):
    """The addresses that a page leads to or shows, and the anchors in it."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        self.targets.update(attributes[name] for name in ("href", "src") if attributes.get(name))


def test_no_link_is_broken():
    links = {page: Links((SITE / page).read_text()) for page in PAGES}
    broken = []
    n_links = 0
    for page, of_page in links.items():
        for target in of_page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue  # the internet's
            n_links += 1
            path = os.path.normpath(os.path.join(os.path.dirname(page), unquote(parts.path))) if parts.path else page
            is_anchor = parts.fragment and path in links
            if not (SITE / path).exists() or (is_anchor and unquote(parts.fragment) not in links[path].anchors):
                broken.append((page, target))
    assert broken == []
    assert n_links > 1000
