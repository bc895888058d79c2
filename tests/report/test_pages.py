"""The real book, rendered by the embedded engine, in headless Chromium on a desk and on a phone, with no network."""

import html
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from derivations import scaling
from experiments.store.files import ROOT
from report.engine import Book, render
from report.figures import whatif

CHAPTERS = Book.read(ROOT).chapters
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
SPOKEN = ("error", "warning")  # Vega says as a warning what it can't draw as asked
LOCAL = ("file:", "data:", "blob:")
# What sticks out of the window, other than what its own container scrolls.
OVERFLOWING = """() => {
  const scrolls = (e) => e && (getComputedStyle(e).overflowX != "visible" || scrolls(e.parentElement));
  return [...document.querySelectorAll("main *, header *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e.parentElement))
    .map((e) => e.outerHTML.slice(0, 120));
}"""
EMPTY_CHARTS = """() => [...document.querySelectorAll(".vega-chart")].filter((chart) => {
  const drawing = chart.querySelector("svg, canvas");
  return !drawing || drawing.clientWidth < 100 || drawing.clientHeight < 50 || !chart.querySelector("path, canvas");
}).map((chart) => chart.id)"""
BROKEN_IMAGES = "() => [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)"
# Rows of a list are alike, and axe takes seconds for thousands: it sees all once, and ten for what takes longest.
SHORTENED = """document.querySelectorAll("tbody, main ul, .callout-body:has(> :nth-child(100))").forEach((list) =>
  [...list.children].slice(10).forEach((row) => row.remove()))"""
OPENED = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
COLOURS = ["color-contrast", "link-in-text-block"]  # axe's rules about colours, which take most of its time
DEAD_LINKS = """() => [...document.querySelectorAll("a[href^='#']")].map((a) => decodeURIComponent(a.hash.slice(1)))
  .filter((id) => id && !document.getElementById(id))"""


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Book:
    book = Book.read(ROOT, tmp_path_factory.mktemp("pages") / "_book")
    render(book, ["html", "pdf"])
    return book


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed, and in CI the pages must be looked at")
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def offline(browser: Any) -> Any:
    """The one tab that all tests open their pages in: a new tab for each takes three times as long."""
    context = browser.new_context()
    context.set_offline(True)
    return context.new_page()


@pytest.fixture
def page(offline: Any) -> Any:
    offline.emulate_media(media="screen", color_scheme="light")
    return offline


def show(page: Any, book: Book, chapter: str, width: int = 1280) -> None:
    """Load a chapter at a window's width, and wait for its charts."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((book.output / chapter).with_suffix(".html").as_uri(), wait_until="load")
    page.wait_for_function("[...document.querySelectorAll('.vega-chart')].every((e) => e.querySelector('svg, canvas'))")


@pytest.fixture(scope="module")
def scriptless(browser: Any) -> Any:
    """A tab without JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    context.set_offline(True)
    return context.new_page()


@pytest.fixture
def complaints(page: Any) -> Iterator[list[str]]:
    """What the page complains about, and what it asks the network for."""
    found: list[str] = []
    listeners = {
        "console": lambda message: found.extend([message.text] if message.type in SPOKEN else []),
        "pageerror": lambda error: found.append(str(error)),
        "request": lambda request: found.extend([] if request.url.startswith(LOCAL) else [request.url]),
        "requestfailed": lambda request: found.append(f"not loaded: {request.url}"),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield found
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


def test_complaints_are_heard(page: Any, complaints: list[str]) -> None:
    page.goto("data:text/html,<script>console.warn('drawn'); missing()</script><img src='http://a.invalid/b'>")
    page.wait_for_load_state("load")
    said = {"drawn", "missing is not defined", "http://a.invalid/b", "not loaded: http://a.invalid/b"}
    assert said <= set(complaints)


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_page(rendered: Book, page: Any, complaints: list[str], chapter: str, width: int) -> None:
    show(page, rendered, chapter, width)
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(EMPTY_CHARTS) == []
    assert page.evaluate(BROKEN_IMAGES) == []
    assert page.evaluate(DEAD_LINKS) == []
    assert page.locator("h1").count() == 1
    assert page.locator("#chapters").is_visible() == (width > 1000)
    if width < 1000:
        page.locator("header label").click()
        assert page.locator("#chapters").is_visible()


def violations(page: Any, **options: Any) -> list[tuple[str, str, str]]:
    """What axe finds: rule, weight and the first place."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]} | options).response["violations"]
    return [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_page_is_accessible(rendered: Book, page: Any, chapter: str, width: int) -> None:
    """Its colours are the same at both widths: the light ones are looked at on a desk, the dark ones on a phone."""
    show(page, rendered, chapter, width)
    page.evaluate(OPENED)
    if width < 1280:
        page.evaluate(SHORTENED)
    assert violations(page, rules={rule: {"enabled": False} for rule in COLOURS}) == []
    page.evaluate(SHORTENED)
    page.emulate_media(color_scheme="light" if width == 1280 else "dark")
    assert violations(page, runOnly=COLOURS) == []


def test_what_is_not_accessible_is_found(page: Any) -> None:
    page.goto("data:text/html,<title>T</title><main><img src='data:,'><p style='color:gray;background:white'>Pale</p>")
    assert {"image-alt", "color-contrast"} <= {rule for rule, *_ in violations(page)}
    assert {rule for rule, *_ in violations(page, runOnly=COLOURS)} == {"color-contrast"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_without_javascript_each_chart_is_a_picture_with_a_text(rendered: Book, scriptless: Any, chapter: str) -> None:
    scriptless.goto((rendered.output / chapter).with_suffix(".html").as_uri(), wait_until="load")
    pictures = scriptless.locator("noscript img")
    assert pictures.count() == scriptless.locator(".vega-chart").count()
    for picture in pictures.all():
        assert len(str(picture.get_attribute("alt"))) > 20
        assert (rendered.output / chapter).parent.joinpath(str(picture.get_attribute("src"))).is_file()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_printing_a_page_loses_no_column(rendered: Book, page: Any, chapter: str) -> None:
    a4 = 718  # pixels between margins of 1 cm
    show(page, rendered, chapter, a4)
    page.emulate_media(media="print")
    page.evaluate(OPENED)
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("main table, main pre")]
          .filter((e) => e.getBoundingClientRect().right > width + 1).map((e) => e.textContent.slice(0, 80))""",
        a4,
    )
    assert wide == []


def test_charts_are_interactive(rendered: Book, page: Any) -> None:
    show(page, rendered, "report/p3-architectures.qmd")
    bar = page.locator(".vega-chart svg .mark-rect path").first
    bar.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")


def test_sliders_redraw_the_panel_with_no_network(rendered: Book, page: Any) -> None:
    show(page, rendered, "report/scaling-model.qmd")
    panel = page.locator("#fig-scaling-whatif")
    panel.locator("input").first.wait_for()
    setting = {
        slider.name: float(panel.locator(f"input[name={slider.name}]").input_value()) for slider in whatif.SLIDERS
    }
    for name, value in (("link", 5), ("gradient", 553), ("batch", 32), ("price", 12.29), ("overlap", 0.5)):
        page.evaluate(
            """([name, value]) => {
              const slider = document.querySelector(`#fig-scaling-whatif input[name=${name}]`);
              slider.value = value;
              slider.dispatchEvent(new Event("input"));
            }""",
            [name, value],
        )
        setting[name] = value
    symbols = {symbol: setting[label] for symbol, label in whatif.NAMES.items() if label in setting}
    expected = float(whatif.quantities()["throughput"].subs(symbols | {scaling.p: 16}))

    def drawn() -> float:
        labels = panel.locator("svg path[aria-label]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
        (text,) = {label for label in labels if label.startswith("learners: 16; images/s: ")}
        figure = text.rpartition(" ")[2]
        return float(figure.rstrip("k")) * (1e3 if figure.endswith("k") else 1)

    deadline = time.monotonic() + 10
    while drawn() != pytest.approx(expected, rel=1e-4) and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert drawn() == pytest.approx(expected, rel=1e-4)


def test_links_between_pages_have_targets(rendered: Book, scriptless: Any) -> None:
    ids: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    for chapter in CHAPTERS:
        scriptless.goto((rendered.output / chapter).with_suffix(".html").as_uri())
        ids[scriptless.url] = set(scriptless.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)"))
        found = scriptless.evaluate(
            "[...document.links].filter((a) => a.protocol == 'file:').map((a) => [a.href, a.pathname])"
        )
        links |= {(href.split("#")[0], href.partition("#")[2]) for href, path in found if path.endswith(".html")}
    assert len(links) > len(CHAPTERS)
    assert [link for link in links if link[0] not in ids or (link[1] and link[1] not in ids[link[0]])] == []


def test_files_that_pages_link_to_are_there(rendered: Book) -> None:
    linked = set()
    for chapter in CHAPTERS:
        page = (rendered.output / chapter).with_suffix(".html")
        for target in re.findall(r'href="([^":#]+\.(?:csv|json))"', page.read_text(encoding="utf-8")):
            linked.add((page.parent / target).resolve().relative_to(rendered.output).as_posix())
    assert {"answers.json", "report/provenance.csv", "report/rows/fig-p1-scaling.csv"} <= linked
    assert [name for name in sorted(linked) if not (rendered.output / name).stat().st_size] == []
    assert {f"report/rows/{path.name}" for path in (rendered.output / "report/rows").iterdir()} <= linked


def test_runs_under_a_figure_have_their_entries(rendered: Book) -> None:
    entries = set(re.findall(r'id="(run-[^"]+)"', (rendered.output / "report/provenance.html").read_text()))
    for chapter in CHAPTERS:
        text = (rendered.output / chapter).with_suffix(".html").read_text(encoding="utf-8")
        assert set(re.findall(r'provenance\.html#(run-[^"]+)"', text)) <= entries


def words(text: str) -> str:
    """Text without spaces and with straight quotes, as HTML and Markdown have them alike."""
    return re.sub(r"\s", "", html.unescape(text)).replace("’", "'")


def test_answers_json_has_the_sentences_of_the_pages(rendered: Book) -> None:
    pages = [words(re.sub(r"<[^>]+>", "", path.read_text())) for path in (rendered.output / "report").glob("*.html")]
    front = words(re.sub(r"<[^>]+>", "", (rendered.output / "index.html").read_text()))
    answers = json.loads((rendered.output / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == 20
    for answer in answers:
        # Markup and formulas aside
        pieces = [words(piece) for piece in re.split(r"\$[^$]*\$|[*`]", answer["sentence"])]
        assert all(piece in front for piece in pieces), answer["part"]
        assert any(all(piece in page for piece in pieces) for page in pages), answer["part"]


def test_the_pdf_has_neither_the_line_nor_the_list_of_runs(rendered: Book) -> None:
    text = subprocess.run(["pdftotext", rendered.output / rendered.pdf_name, "-"], capture_output=True, text=True)
    assert "Provenance" in text.stdout
    assert "code: report/" not in text.stdout and "All runs as a file" not in text.stdout


WORD = re.compile(r'<word xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)">([^<]*)</word>')


def overprinted(page: str) -> list[tuple[str, str]]:
    """Words of a page, as `pdftotext -bbox` lists them, that stand on each other: whose boxes share more than a point
    of width and most of the lower one's height. Braces and the like have boxes that are larger than they are."""
    boxes = [(*map(float, found[:4]), found[4]) for found in WORD.findall(page) if re.search(r"[0-9A-Za-z]", found[4])]
    boxes.sort()
    found = []
    for i, (_, top, right, bottom, word) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom, other in boxes[i + 1 :]:
            if other_left > right - 1:
                break
            shared = min(bottom, other_bottom) - max(top, other_top)
            lower = min(bottom - top, other_bottom - other_top)
            if min(right, other_right) - other_left > 1 and shared > 0.6 * lower:
                found.append((word, other))
    return found


def test_words_that_stand_on_each_other_are_found() -> None:
    word = '<word xMin="{}" yMin="{}" xMax="{}" yMax="{}">{}</word>'
    beside, on = word.format(30, 10, 50, 20, "beside"), word.format(15, 13, 40, 23, "on")
    assert overprinted(word.format(10, 10, 30, 20, "first") + beside) == []
    assert overprinted(word.format(10, 10, 30, 20, "first") + on) == [("first", "on")]  # 7 points of 10 are shared
    assert overprinted(word.format(10, 10, 30, 20, "first") + word.format(10, 22, 30, 32, "below")) == []


def test_no_two_words_of_the_pdf_stand_on_each_other(rendered: Book) -> None:
    listed = subprocess.run(["pdftotext", "-bbox", rendered.output / rendered.pdf_name, "-"], capture_output=True)
    pages = listed.stdout.decode().split("<page ")[1:]
    assert len(pages) > 20
    assert {number: found for number, page in enumerate(pages, 1) if (found := overprinted(page))} == {}
    assert [number for number, page in enumerate(pages, 1) if not WORD.search(page)] == []  # none is empty


def test_pages_of_the_pdf_are_numbered_from_the_first_to_the_last(rendered: Book) -> None:
    """A layout that doesn't settle numbers them wrongly."""
    listed = subprocess.run(["pdftotext", "-layout", rendered.output / rendered.pdf_name, "-"], capture_output=True)
    pages = listed.stdout.decode().split("\f")[:-1]
    assert [page.split()[-1] for page in pages] == [str(number) for number in range(1, len(pages) + 1)]


def test_no_page_of_the_pdf_ends_with_the_caption_of_a_table(rendered: Book) -> None:
    listed = subprocess.run(["pdftotext", "-layout", rendered.output / rendered.pdf_name, "-"], capture_output=True)
    ends = [page.strip().splitlines()[-4:] for page in listed.stdout.decode().split("\f")[:-1]]
    assert [line for end in ends for line in end if re.match(r"\s*Table \d+\.\d+: ", line)] == []


def test_no_text_of_the_pdf_is_smaller_than_8_points(rendered: Book) -> None:
    """Formulas aside, whose indices are smaller."""
    command = ["pdftohtml", "-xml", "-i", "-zoom", "1", "-stdout", str(rendered.output / rendered.pdf_name)]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    fonts = re.findall(r'<fontspec id="\d+" size="(\d+)" family="([^"]+)"', listed)
    assert len(fonts) > 5
    assert [(size, family) for size, family in fonts if int(size) < 8 and "Math" not in family] == []


def test_pdf_is_there(rendered: Book) -> None:
    assert (rendered.output / rendered.pdf_name).stat().st_size > 50_000


def largest_gap(page: str) -> float:
    """The largest part of a page's height that has no words, as `pdftotext -bbox` lists them; the margins aside."""
    height = float(re.findall(r'height="([\d.]+)"', page)[0])
    ends, gap = 0.07 * height, 0.0
    for top, bottom in sorted((float(found[1]), float(found[3])) for found in WORD.findall(page)):
        gap, ends = max(gap, top - ends), max(ends, bottom)
    return gap / height


def test_a_gap_is_what_has_no_words() -> None:
    word = '<word xMin="10" yMin="{}" xMax="30" yMax="{}">word</word>'
    page = 'width="595" height="1000">' + word.format(100, 110) + word.format(90, 400) + word.format(700, 710)
    assert largest_gap(page) == pytest.approx(0.3)  # from 400 to 700; the 110 of a word beside ends nothing


def test_no_page_of_a_chapter_is_half_empty(rendered: Book) -> None:
    """But its last one, and the front."""
    listed = subprocess.run(["pdftotext", "-bbox", rendered.output / rendered.pdf_name, "-"], capture_output=True)
    pages = listed.stdout.decode().split("<page ")[2:]
    starts = [bool(re.match(r"\d \w|Answers|References", " ".join(f[4] for f in WORD.findall(p)))) for p in pages]
    inner = [page for page, begins in zip(pages, [*starts[1:], True], strict=True) if not begins]
    assert len(inner) > 20
    assert [(number, gap) for number, page in enumerate(inner, 2) if (gap := largest_gap(page)) > 0.4] == []
