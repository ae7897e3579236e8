"""The built site in a real Chromium: every page opens without error, stays on this host, shows its math."""
import contextlib
import functools
import os
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

SITE = Path(os.environ.get("SITE", Path(__file__).parents[2] / "book/_build/html"))
PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if "_static" not in p.parts)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):  # a browser that is done with a page
            super().copyfile(source, outputfile)


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-quic"]
    with sync_playwright() as p:
        launched = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=quiet)
        yield launched
        launched.close()


def opened(browser, address, name, width=1280):
    """The page, and what went wrong while it loaded."""
    page, wrong = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(f"page error: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on("request", lambda r: wrong.append(f"left the host: {r.url}")
            if not r.url.startswith((address, "data:", "blob:")) else None)
    # Chromium asks for this by itself on pages that name no icon, like the redirect at the root
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(f"{address}/{name}", wait_until="networkidle")
    return page, wrong


def test_there_is_a_site():
    assert len(PAGES) >= 10, f"no site under {SITE}: ci/test builds it"
    assert {"index.html", "book/index.html", "notebooks/05_algorithm_1.html"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page(name, browser, address):
    page, wrong = opened(browser, address, name)
    try:
        assert not wrong
        assert page.title().strip()
        no_alt = page.eval_on_selector_all("img", "all => all.filter(i => !i.alt.trim()).map(i => i.src)")
        assert not no_alt
        broken = page.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.src)")
        assert not broken
        waiting = page.locator(".math").count()
        assert page.locator("mjx-container").count() >= waiting and page.locator("mjx-merror").count() == 0
        text = page.locator("body").inner_text()
        assert "Problem" not in text[:200] and "| —" not in text and "| --" not in text  # tables, not their source
    finally:
        page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_down_only(name, browser, address):
    page, wrong = opened(browser, address, name, width=390)
    try:
        assert not wrong
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        page.close()


def column(table, k):
    read = "(rows, k) => rows.map(row => row.cells[k].textContent.trim())"
    return table.locator("tbody tr:visible").evaluate_all(read, k)


def test_the_scorecard_sorts_and_filters(browser, address):
    page, wrong = opened(browser, address, "notebooks/scorecard.html")
    try:
        table, controls = page.locator(".tag_scorecard table").nth(1), page.locator(".scorecard-controls").nth(1)
        count = controls.get_by_role("status")
        assert count.text_content() == "131 of 131 rows" and len(column(table, 0)) == 131
        reported = table.get_by_role("columnheader", name="reported")
        for direction, backwards in (("ascending", False), ("descending", True)):
            reported.get_by_role("button").press("Enter")  # with the keyboard
            found = [float(text) for text in column(table, 3)]
            assert reported.get_attribute("aria-sort") == direction and found == sorted(found, reverse=backwards)
        assert table.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1
        reported.get_by_role("button").press("Enter")
        assert reported.get_attribute("aria-sort") == "none" and column(table, 0)[-1] == "Table 7"  # as it was
        claims = page.locator(".tag_scorecard table").nth(0)
        claims.get_by_role("columnheader", name="as printed").get_by_role("button").click()
        held = [text for text in column(claims, 2) if text.startswith("holds")]
        assert held[0] == "holds in 0 of 1" and held[-1] == "holds" and held.index("holds in 30 of 64") == 1
        controls.get_by_label("table").select_option("Table 7")
        assert count.text_content() == "12 of 131 rows" and set(column(table, 0)) == {"Table 7"}
        controls.get_by_label("search").fill("CIFAR100 eta")
        assert set(column(table, 1)) == {"cifar100, eta"} and count.text_content() == "3 of 131 rows"
        controls.get_by_label("search").fill("")
        controls.get_by_label("table").select_option("")
        verdicts = column(table, 5)
        controls.get_by_label("verdict").select_option("not run")
        assert len(column(table, 5)) == verdicts.count("not run") < 131
        link = table.locator("a[href$='.ipynb']").first
        assert page.request.get(f"{address}/notebooks/{link.get_attribute('href')}").json()["cells"]
        assert not wrong  # before axe fetches style sheets by itself
        found = Axe().run(page, context=".bd-article", options={"runOnly": ["wcag2a", "wcag2aa"]}).response
        assert not found["violations"], [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]]
    finally:
        page.close()


class Links(HTMLParser):
    """All links and all places of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found.get("id"), found.get("name")}
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])


def test_links_inside_the_site_lead_somewhere():
    read = functools.cache(lambda file: Links(file.read_text()))
    for name in PAGES:
        for link in read(SITE / name).links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            file = ((SITE / name).parent / unquote(url.path)).resolve() if url.path else SITE / name
            assert file.exists(), f"{name} -> {link}"
            if url.fragment and file.suffix == ".html":
                assert url.fragment in read(file).places, f"{name} -> {link}"
