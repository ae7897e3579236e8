"""The built site in a real Chromium: every page opens without error, stays on this host, shows its
math."""
import contextlib
import csv
import functools
import io
import json
import os
import re
import threading
from base64 import b64decode
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import glossary_links
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from sagelib import catalog, datasets
from sagelib.bench.paths import TOP
from sagelib.methods import sage
from sagelib.rearrange import offsets, total_saliency
from sagelib.saliency import smooth

SITE = Path(os.environ.get("SITE", TOP / "book/_build/html"))
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
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]
    with sync_playwright() as p:
        launched = p.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=quiet)
        yield launched
        launched.close()


def opened(browser, address, name, width=1280, **options):
    """The page, and what went wrong while it loaded."""
    page, wrong = browser.new_page(viewport={"width": width, "height": 900}, **options), []
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


def violations(page):
    """What axe finds against WCAG 2, A and AA. Code and formulas look alike everywhere: one page
    has them looked at."""
    parts = {} if "05_algorithm_1" in page.url else {
        "exclude": [[".highlight pre"], ["mjx-container"]]}
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    options = {"runOnly": rules, "resultTypes": ["violations", "incomplete"]}
    found = Axe().run(page, context=parts or None, options=options).response
    # text in the colour of its ground
    unseen = [
        v for v in found["incomplete"] if v["id"] == "color-contrast"
        and any(c["data"].get("messageKey") == "equalRatio" for n in v["nodes"] for c in n["any"])]
    return [(v["id"], v["nodes"][0]["html"]) for v in found["violations"] + unseen]


def cut_formulas(page):
    """How many formulas are wider than their column, once they are set."""
    page.evaluate("window.MathJax && MathJax.startup.promise.then(() => 0)")
    return page.locator(".bd-article mjx-container").evaluate_all("""all => all.filter(box => {
        const column = box.closest('p, li, td, .math, .bd-article').getBoundingClientRect();
        const formula = box.firstElementChild.getBoundingClientRect();
        return box.hasAttribute('display') ? box.scrollWidth > box.clientWidth + 1
            : !box.closest('table') && formula.right > column.right + 1;
    }).length""")


def test_there_is_a_site():
    assert len(PAGES) >= 10, f"no site under {SITE}: ci/test builds it"
    assert {"index.html", "book/index.html", "notebooks/05_algorithm_1.html"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_error_shows_its_math_and_stays_light(name, browser, address):
    page, wrong = opened(browser, address, name)
    try:
        assert not wrong
        assert page.title().strip()
        no_alt = page.eval_on_selector_all("img", "all => all.filter(i => !i.alt.trim()).map(i => "
                                                  "i.src)")
        assert not no_alt
        sizes = ("['navigation', 'resource'].flatMap(t => performance.getEntriesByType(t))"
                 ".map(e => e.decodedBodySize)")
        # as it opens; images further down come when they are near
        assert 0 < sum(page.evaluate(sizes)) < 1_500_000
        broken = page.eval_on_selector_all(
            "img", """async all => {
            await Promise.all(all.map(i => {
                i.loading = 'eager';
                return i.decode().catch(() => 0);
            }));
            return all.filter(i => !i.naturalWidth).map(i => i.src); }""")
        assert not broken
        assert str(TOP) not in page.content()  # a machine's path
        assert cut_formulas(page) == 0
        # none has to shrink where there is room
        assert not page.locator("mjx-container[style*='zoom']").count()
        waiting = page.locator(".math").count()
        assert page.locator("mjx-container").count() >= waiting
        assert page.locator("mjx-merror").count() == 0
        text = page.locator("body").inner_text()
        # tables, not their source
        assert "Problem" not in text[:200] and "| —" not in text and "| --" not in text
        assert not violations(page)
    finally:
        page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_down_only(name, browser, address):
    """In the dark, too; and what scrolls by itself can be reached with the keyboard."""
    page, wrong = opened(browser, address, name, width=390, color_scheme="dark")
    try:
        assert not wrong
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert cut_formulas(page) == 0
        assert not violations(page)
        # with WCAG 1.4.12's text spacing, or on a machine with wide fonts
        page.evaluate("document.body.appendChild(document.createElement('style')).textContent = "
                      "'* { letter-spacing: .12em !important; word-spacing: .16em !important; }'")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        page.close()


@pytest.mark.parametrize("name, box", [("12_ablations", "table"), ("05_algorithm_1", "pre"),
                                       ("scorecard", ".scorecard-frame")])
def test_what_goes_on_sideways_fades_until_its_end_is_there(name, box, browser, address):
    page, wrong = opened(browser, address, f"notebooks/{name}.html", width=390)
    try:
        found = page.locator(f".bd-article {box}[data-reach]:visible").first
        assert "gradient" in found.evaluate("box => getComputedStyle(box).maskImage") and not wrong
        found.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        page.wait_for_function("box => getComputedStyle(box).maskImage === 'none'",
                               arg=found.element_handle())
        found.evaluate("box => { box.scrollLeft = 0; }")
        page.wait_for_function("box => getComputedStyle(box).maskImage !== 'none'",
                               arg=found.element_handle())
    finally:
        page.close()


def column(table, k):
    read = "(rows, k) => rows.map(row => row.cells[k].textContent.trim())"
    return table.locator("tbody tr:visible").evaluate_all(read, k)


def test_the_scorecard_sorts_and_filters(browser, address):
    page, wrong = opened(browser, address, "notebooks/scorecard.html")
    try:
        table, controls = page.locator(".tag_scorecard table").nth(1), page.locator(
            ".scorecard-controls").nth(1)
        count = controls.get_by_role("status")
        assert count.text_content() == "131 of 131 rows" and len(column(table, 0)) == 131
        reported = table.get_by_role("columnheader", name="reported")
        for direction, backwards in (("ascending", False), ("descending", True)):
            reported.get_by_role("button").press("Enter")  # with the keyboard
            found = [float(text) for text in column(table, 3)]
            assert reported.get_attribute("aria-sort") == direction
            assert found == sorted(found, reverse=backwards)
        assert table.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1
        reported.get_by_role("button").press("Enter")
        # as it was
        assert reported.get_attribute("aria-sort") == "none" and column(table, 0)[-1] == "Table 7"
        claims = page.locator(".tag_scorecard table").nth(0)
        claims.get_by_role("columnheader", name="as printed").get_by_role("button").click()
        held = [text for text in column(claims, 2) if text.startswith("holds")]
        assert held[0] == "holds in 0 of 1" and held[-1] == "holds"
        assert held.index("holds in 30 of 64") == 1
        controls.get_by_label("table").select_option("Table 7")
        assert count.text_content() == "12 of 131 rows" and set(column(table, 0)) == {"Table 7"}
        controls.get_by_label("search").fill("CIFAR100 eta")
        assert set(column(table, 1)) == {"cifar100, eta"}
        assert count.text_content() == "3 of 131 rows"
        controls.get_by_label("search").fill("")
        controls.get_by_label("table").select_option("")
        verdicts = column(table, 5)
        controls.get_by_label("verdict").select_option("not run")
        assert len(column(table, 5)) == verdicts.count("not run") < 131
        link = table.locator("a[href$='.ipynb']").first
        assert page.request.get(f"{address}/notebooks/{link.get_attribute('href')}").json()["cells"]
        assert not wrong  # before axe fetches style sheets by itself
        assert not violations(page)
    finally:
        page.close()


def test_a_link_leads_to_a_filtered_and_sorted_table(browser, address):
    """What the keyboard makes of a table is in its link, and the link makes it again."""
    page, wrong = opened(browser, address, "notebooks/scorecard.html")
    try:
        controls = page.locator(".scorecard-controls").nth(1)
        controls.get_by_label("search").fill("CIFAR100 eta")
        controls.get_by_label("table").select_option("Table 7")
        table = page.locator(".tag_scorecard table").nth(1)
        button = table.get_by_role("columnheader", name="reported").get_by_role("button")
        button.press("Enter")
        button.press("Enter")
        shown, link = column(table, 3), controls.get_by_role("link", name="link to this view")
        href = link.get_attribute("href")
        assert len(shown) == 3 and page.url.endswith(href) and href.startswith("#view=")
    finally:
        page.close()
    page, more = opened(browser, address, f"notebooks/scorecard.html{href}")
    try:
        table = page.locator(".tag_scorecard table").nth(1)
        head = table.get_by_role("columnheader", name="reported")
        assert column(table, 3) == shown and head.get_attribute("aria-sort") == "descending"
        whole = column(page.locator(".tag_scorecard table").nth(0), 0)
        assert len(whole) > 50  # the other table is as it was
        page.evaluate("location.hash = '#view=the-claims&search=nowhere&only.verdict=none"
                      "&sort=none&order=descending'")
        page.wait_for_function("document.querySelectorAll('.scorecard-count')[0].textContent"
                               ".startsWith('0 of')")
        assert column(table, 3) == shown and not wrong + more
    finally:
        page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_leaderboard_sorts_and_its_downloads_are_files(width, browser, address):
    page, wrong = opened(browser, address, "notebooks/leaderboard.html", width)
    try:
        files = page.locator("a[download^=leaderboard]")
        names = files.evaluate_all("all => all.map(a => a.getAttribute('href'))")
        tables = page.locator(".tag_scorecard table")
        assert tables.count() == page.locator(".bd-article h3[id]").count()
        if not names:  # no board yet
            assert tables.count() == 0
            return
        assert names == ["leaderboard.csv", "leaderboard_runs.csv", "leaderboard.json"]
        texts = [page.request.get(f"{address}/notebooks/{name}").text() for name in names]
        rows = json.loads(texts[2])
        assert [len(list(csv.DictReader(io.StringIO(text)))) for text in texts[:2]] == [
            len(rows["methods"]), len(rows["runs"])]
        assert len(rows["methods"]) == page.locator(".tag_scorecard tbody tr").count()
        head = tables.first.get_by_role("columnheader", name="method")
        methods = tables.first.locator("th").all_text_contents().index("method")
        head.get_by_role("button").press("Enter")
        found = column(tables.first, methods)
        assert found == sorted(found) and head.get_attribute("aria-sort") == "ascending"
        page.locator(".scorecard-controls").first.get_by_label("search").fill(found[0])
        assert found[0] in column(tables.first, methods) and not wrong
    finally:
        page.close()


def test_search_finds_a_word(browser, address):
    page, wrong = opened(browser, address, "search.html?q=rearrangement")
    try:
        page.locator("#search-results li a").first.wait_for()
        links = page.locator("#search-results li a").evaluate_all(
            "all => all.map(a => a.getAttribute('href'))")
        assert any("04_rearrangement.html" in link for link in links) and not wrong
    finally:
        page.close()


def test_code_can_be_copied_and_notebooks_downloaded(browser, address):
    page, wrong = opened(browser, address, "notebooks/05_algorithm_1.html")
    try:
        assert page.locator("button.copybtn").count() >= 10
        link = page.locator("a.btn-download-source-button").get_attribute("href")
        assert page.request.get(f"{address}/notebooks/{link}").json()["cells"] and not wrong
    finally:
        page.close()


# the rearrangement explorer


def by_the_library(page):
    """What the library makes of the state that the page shows: v of all shifts, the mask, the mix
    in bytes, the best shift."""
    state = page.evaluate("document.querySelector('.sage-explorer').explorer.state")
    data = json.loads(page.locator(".sage-explorer script").text_content())
    h, w = data["height"], data["width"]
    maps = torch.stack([
        torch.from_numpy(np.frombuffer(b64decode(data["images"][k]["saliency"]), np.float32).copy())
        for k in (state["first"], state["second"])]).view(2, 1, h, w)
    pixels = [data["images"][k]["pixels"] for k in (state["first"], state["second"])]
    images = torch.stack(
        [torch.from_numpy(np.frombuffer(b64decode(p), np.uint8).copy()) for p in pixels])
    images, tau = images.view(2, h, w, 3).permute(0, 3, 1,
                                                  2).float(), torch.tensor([state["tau"]] * 2)
    mean = torch.tensor(data["mean"])[:, None, None]
    a, b = sage.weighted(images, torch.eye(2), smooth(maps, state["sigma"]), torch.tensor([1, 0]),
                         state["lam"])
    v, every = total_saliency(a[:1], b[:1], offsets(h, w))[0], offsets(h, w)
    mixed = sage.mix_at(images - mean, torch.eye(2), a, b, torch.tensor([1, 0]), tau)
    mix = (mixed.x[0] + mean).permute(1, 2, 0).flatten()
    return state, v, mixed.mask[0].flatten(), mix, every.tolist()


def agrees(page):
    """The state of the page, where all that it shows is the library's to 1e-4."""
    state, v, m, mix, every = by_the_library(page)
    explorer = "document.querySelector('.sage-explorer').explorer"
    assert torch.allclose(torch.tensor(page.evaluate(f"{explorer}.totals()")), v, atol=1e-5)
    assert torch.allclose(torch.tensor(page.evaluate(f"{explorer}.mask()")), m, atol=1e-4)
    shown = page.locator(".sage-explorer").evaluate("e => ({...e.dataset})")
    assert [int(shown["down"]), int(shown["right"])] == state["tau"]
    assert abs(float(shown["gamma"]) - m.mean()) < 1e-4
    assert abs(float(shown["v"]) - v[every.index(state["tau"])]) < 1e-4
    best, chosen = page.evaluate(f"{explorer}.best()"), page.evaluate(f"{explorer}.chosen()")
    assert abs(v[every.index(best)] - v.max()) < 1e-6
    assert abs(v[every.index(chosen)] - v[state["sample"]].max()) < 1e-6
    text = page.locator(".explorer-values").text_content()
    assert f"λ {state['lam']:.2f}. Shift {state['tau'][0]} down, {state['tau'][1]} right." in text
    for name in ("lam", "sigma", "u"):
        slider = page.get_by_role("slider", name={"lam": "λ", "sigma": "σ", "u": "u"}[name] + ", ")
        assert float(slider.input_value()) == pytest.approx(state[name], abs=1e-9)
        assert slider.locator(
            "xpath=following-sibling::span").text_content() == f"{state[name]:.2f}"
    assert f"v {float(shown['v']):.3f}" in text and f"γ {float(shown['gamma']):.3f}" in text
    assert (drawn(page, "The mixed image").flatten() - mix).abs().max() <= 1  # rounded to bytes
    # orange, grey, blue
    ends = torch.tensor([[213, 94, 0], [235, 235, 235], [0, 114, 178]]).float()
    wanted = torch.lerp(ends[[1]], torch.where(m[:, None] < 0.5, ends[[0]], ends[[2]]),
                        (2 * m - 1).abs()[:, None])
    assert (drawn(page, "The mask") - wanted).abs().max() <= 1
    landscape_agrees(drawn(page, "Total saliency").view(378, 378, 3), v, every, state, best, chosen)
    return state


def drawn(page, label):
    """The pixels (h w, 3) of a canvas whose name begins so."""
    url = page.locator(f".sage-explorer figure canvas[aria-label^='{label}']").evaluate(
        "c => c.toDataURL()")
    # a PNG loses nothing
    image = Image.open(io.BytesIO(b64decode(url.split(",")[1]))).convert("RGB")
    return torch.from_numpy(np.asarray(image).copy()).view(-1, 3).float()


def landscape_agrees(image, v, every, state, best, chosen):
    """Where no mark is near, the colour of v; red on the best shift, black around this one, white
    on the sample."""
    marks = torch.tensor([every[k] for k in state["sample"]] + [best, chosen, state["tau"]]).float()
    places = torch.tensor(every)
    free = (places[:, None] - marks).norm(dim=2).min(1).values > 5
    at = 6 * (places + 31) + 3  # 6 points for a shift
    colours = torch.tensor([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98],
                            [253, 231, 37]]).float()
    share = 4 * ((v - v.min()) /
                 (v.max() - v.min()) if v.max() - v.min() > 1e-6 else torch.zeros_like(v))
    low = share.floor().clamp(max=3).long()
    wanted = torch.lerp(colours[low], colours[low + 1], (share - low)[:, None])
    seen = image[at[:, 0], at[:, 1]]
    assert free.sum() > 300 and (seen - wanted)[free].abs().max() <= 3
    # under the black ring
    if max(abs(best[0] - state["tau"][0]), abs(best[1] - state["tau"][1])) not in (2, 3, 4):
        assert image[6 * (best[0] + 31) + 3, 6 * (best[1] + 31) + 3].tolist() == [208, 0, 0]
    inside = 1 if state["tau"][1] < 0 else -1  # the ring's side that is in the image
    assert image[6 * (state["tau"][0] + 31) + 3,
                   6 * (state["tau"][1] + 31) + 3 + 18 * inside].max() <= 2
    white = [image[6 * (i + 31) + 3, 6 * (j + 31) + 3].min() >= 250
             for i, j in (every[k] for k in state["sample"])]
    assert sum(white) >= 30  # but for those under other marks


def test_the_explorer_carries_the_librarys_images_and_maps(browser, address):
    page, _ = opened(browser, address, "notebooks/explorer.html")
    data = json.loads(page.locator(".sage-explorer script").text_content())
    page.close()
    _, test = catalog.load(datasets, "shapes", train=1000)
    # one of each class
    like, firsts = sage.Sage(), [int((test.labels == k).nonzero()[0, 0]) for k in range(10)]
    assert data["mean"] == [255 * m for m in test.mean]
    assert (data["height"], data["width"]) == (32, 32)
    assert (data["sigma"], data["fraction"], data["u"]) == (like.sigma, like.fraction, like.u)
    objects, dense = test.masks[firsts].view(10, -1).float(), torch.zeros(10, 10)
    for k, image in enumerate(data["images"]):
        assert image["name"] == test.classes[k]
        assert b64decode(image["pixels"]) == test.images[firsts[k]].permute(
            1, 2, 0).contiguous().numpy().tobytes()
        s = torch.from_numpy(np.frombuffer(b64decode(image["saliency"]), np.float32).copy())
        assert s.isfinite().all() and s.min() >= 0 and s.max() > 0
        # on each of the ten objects, over the map's mean
        dense[k] = (objects * s / s.mean()).sum(1) / objects.sum(1)
    others = (dense.sum() - dense.diag().sum()) / 90
    # each map belongs to its own image
    assert dense.diag().mean() > 1.3 * others, (dense.diag(), others)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_explorer_is_the_library_by_hand(width, browser, address):
    page, wrong = opened(browser, address, "notebooks/explorer.html", width)
    try:
        stage = page.locator(".explorer-stage canvas")
        spoken = page.locator(".sage-explorer").get_by_role("status")
        page.wait_for_timeout(600)
        assert spoken.text_content() == ""  # nobody has done anything
        box = stage.bounding_box()
        assert box["width"] > (300 if width > 500 else 330)
        assert stage.evaluate("c => getComputedStyle(c).touchAction") == "pinch-zoom"
        assert agrees(page)["tau"] == [0, 0]
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        pixel, middle = box["width"] / 64, (box["x"] + box["width"] / 2,
                                            box["y"] + box["height"] / 2)
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] - 9 * pixel, middle[1] + 5 * pixel, steps=4)
        page.mouse.up()
        page.mouse.move(*middle)  # let go: it stays
        assert agrees(page)["tau"] == [5, -9]
        page.get_by_role("button", name="no shift").focus()
        page.keyboard.press("Tab")
        assert stage.evaluate("c => c === document.activeElement")
        for key in ("ArrowUp", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown"):
            page.keyboard.press(key)
        assert agrees(page)["tau"] == [8, -4]
        page.keyboard.press("Tab")  # there is a way out
        assert not stage.evaluate("c => c === document.activeElement")
        page.wait_for_timeout(600)
        assert (
            "Shift 8 down, -4 right"
            in spoken.text_content()
            == page.locator(".explorer-values").text_content()
        )
        page.get_by_role("spinbutton", name="down").fill("-40")
        page.get_by_role("spinbutton", name="down").press("Enter")
        assert agrees(page)["tau"] == [-31, -4]  # one row is left in the frame
        for name, value in (("σ", "0"), ("σ", "2.5"), ("λ", "0"), ("u", "1"), ("λ", "1"),
                            ("λ", "0.2"), ("u", "0.15")):
            page.get_by_role("slider", name=f"{name}, ").fill(value)
            page.evaluate("new Promise(requestAnimationFrame).then(() => new "
                          "Promise(requestAnimationFrame))")
            state = agrees(page)
            if state["lam"] == 1:  # nothing of the second: all shifts are equal
                assert "rank 1 of 3969" in page.locator(".explorer-values").text_content()
        assert state["sigma"] == 2.5 and state["u"] == 0.15 == state["lam"]  # lambda stays below u
        page.get_by_role("radio", name="striped disc").nth(1).check(force=True)
        page.get_by_role("radio").first.press("ArrowRight")
        assert [agrees(page)[k] for k in ("first", "second")] == [1, 0]
        page.get_by_role("button", name="best of all").click()
        state, v, _, _, every = by_the_library(page)
        assert abs(v[every.index(state["tau"])] - v.max()) < 1e-6
        page.get_by_role("button", name="draw").click()
        state = agrees(page)
        sample = state["sample"]
        assert len(set(sample)) == 39 and 0 <= state["lam"] <= 0.15
        v = by_the_library(page)[1]
        assert abs(v[every.index(state["tau"])] - v[sample].max()) < 1e-6
        page.get_by_role("radio", name="striped disc").first.check(force=True)
        # the same image twice
        page.get_by_role("radio", name="striped disc").nth(1).check(force=True)
        page.get_by_role("button", name="no shift").click()
        assert agrees(page)["tau"] == [0, 0]
        landscape = page.locator(".explorer-landscape canvas")
        box = landscape.bounding_box()
        landscape.click(position={"x": box["width"] * 35.5 / 63, "y": box["height"] * 20.5 / 63})
        found = agrees(page)["tau"]
        # a shift is 3 points wide
        assert abs(found[0] + 11) <= 1 and abs(found[1] - 4) <= 1 and not wrong
    finally:
        page.close()


def test_a_finger_moves_the_second_image_and_sees_what_it_does(browser, address):
    page, wrong = opened(browser, address, "notebooks/explorer.html", 390, has_touch=True,
                         is_mobile=True, color_scheme="dark")
    try:
        stage = page.locator(".explorer-stage canvas")
        # blue, orange show
        assert stage.evaluate("c => getComputedStyle(c).backgroundColor") == "rgb(243, 244, 245)"
        said, mix, landscape = (page.locator(s).bounding_box()
                                for s in (".explorer-values",
                                          ".explorer-views canvas[aria-label='The mixed image']",
                                          ".explorer-landscape"))
        assert mix["y"] + mix["height"] - said["y"] < 640
        assert mix["y"] + mix["height"] <= landscape["y"]
        stage.scroll_into_view_if_needed()
        box, before = stage.bounding_box(), page.evaluate("scrollY")
        pixel, x, y = box["width"] / 64, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)
        touch.send("Input.dispatchTouchEvent",
                   {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for part in (0.25, 0.5, 0.75, 1):
            to = {"x": x + part * 6 * pixel, "y": y + part * 10 * pixel}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [to]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert agrees(page)["tau"] == [10, 6] and page.evaluate("scrollY") == before and not wrong
    finally:
        page.close()


def test_the_explorer_without_scripts_is_an_image(browser, address):
    page, _ = opened(browser, address, "notebooks/explorer.html", java_script_enabled=False)
    try:
        assert "The picture below" in page.locator(".sage-explorer").inner_text()
        assert page.locator(".bd-article img").count() == 1
        assert page.locator(".sage-explorer canvas").count() == 0
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


def test_the_reference_and_the_map_have_every_public_file():
    """They are written from the tree when the site is built; the map's first table names the
    others."""
    library = TOP / "sagelib"
    reference, map_ = (Links((SITE / page).read_text())
                       for page in ("book/api.html", "notebooks/index.html"))
    named = re.findall(r"`([a-z0-9_/]+\.py)`", (TOP / "notebooks/index.md").read_text())
    for file in library.rglob("*.py"):
        name = str(file.relative_to(library).with_suffix(""))
        if not any(part.startswith("_") for part in name.split("/")):
            place = f"api-{re.sub('[/_]', '-', name)}"
            assert {place, f"module-sagelib.{name.replace('/', '.')}"} <= reference.places
            assert f"#{place}" in reference.links
            assert (f"../book/api.html#{place}" in map_.links) == (f"{name}.py" not in named)


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


@pytest.mark.parametrize("width", [1280, 390])
def test_a_link_shows_what_it_leads_to(width, browser, address):
    page, wrong = opened(browser, address, "notebooks/14_use_it.html", width)
    box = page.locator(".reading-preview")
    try:
        def preview(selector):
            link = page.locator(f".bd-article a.reference.internal{selector}").first
            title = link.get_attribute("title")
            link.hover()
            box.wait_for()
            page.wait_for_function("!document.querySelector('.reading-preview').innerHTML"
                                   ".includes('\\\\\\\\(')")
            assert link.get_attribute("aria-describedby") == box.get_attribute("id")
            shown, place = box.inner_text(), box.bounding_box()
            assert place["x"] >= 0 and place["x"] + place["width"] <= width
            assert not link.get_attribute("title")
            page.keyboard.press("Escape")
            assert box.count() == 0 and link.get_attribute("aria-describedby") is None
            assert link.get_attribute("title") == title
            page.mouse.move(0, 0)
            return shown

        assert "The file that a run leaves" in preview("[href*='glossary.html#term-record']")
        page.locator("a.reference[href='#equation-eq-use-reuse']").first.focus()  # with the keyboard
        box.wait_for()
        assert box.locator("mjx-container").count() == 1
        page.keyboard.press("Tab")
        page.goto(f"{address}/notebooks/09_out_of_distribution.html", wait_until="networkidle")
        assert "Avery Ma" in preview("[href*='bibliography.html#']")
        # what is no definition shows nothing
        page.evaluate("document.querySelector('a.headerlink').dispatchEvent("
                      "new PointerEvent('pointerover', {bubbles: true}))")
        page.wait_for_timeout(300)
        assert box.count() == 0 and not wrong
    finally:
        page.close()


def test_one_button_opens_all_solutions(browser, address):
    page, wrong = opened(browser, address, "notebooks/04_rearrangement.html")
    try:
        closed = "document.querySelectorAll('#exercises details:not([open])').length"
        several, button = page.evaluate(closed), page.locator("#exercises > .reading-solutions")
        assert several > 1 and button.inner_text() == "Show all solutions"
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_function(f"{closed} === 0")
        page.wait_for_function("document.querySelector('.reading-solutions').textContent"
                               " === 'Hide all solutions'")
        assert not wrong
        assert not violations(page)  # which loads style sheets by itself
        page.locator("#exercises details > summary").first.click()  # one by hand
        page.wait_for_function("document.querySelector('.reading-solutions').textContent"
                               " === 'Show all solutions'")
        button.click()
        button.click()
        page.wait_for_function(f"{closed} === {several}")
    finally:
        page.close()


def test_the_first_use_of_a_term_on_a_page_is_a_link_to_the_glossary():
    text = "the mixing masks of saliency maps, a shift and Shifts, the saliency map's end"
    left = ["saliency map", "mixing mask", "shift", "plan"]
    parts = glossary_links.linked(text, left, "notebooks/x")
    links = {part.astext(): part["reftarget"] for part in parts if "reftarget" in part}
    assert "".join(part.astext() for part in parts) == text and left == ["plan"]
    assert links == {"mixing masks": "mixing mask", "saliency maps": "saliency map",
                     "shift": "shift"}
    assert [p.astext() for p in glossary_links.linked("no term", left, "x")] == ["no term"]
    terms = glossary_links.terms((TOP / "book/glossary.md").read_text())
    for page in ("04_rearrangement", "05_algorithm_1"):
        html = (SITE / f"notebooks/{page}.html").read_text()
        linked = re.findall(r'glossary\.html#term-([\w-]+)"', html)
        assert linked and len(linked) == len({*linked})
        assert {*linked} <= {term.replace(" ", "-") for term in terms}
