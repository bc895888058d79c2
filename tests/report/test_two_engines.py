"""Quarto and the embedded engine make the same document: the same headings, labels and numbers on each page."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from experiments.store.files import ROOT
from report import __main__ as command
from report.engine import Book, render

HEADINGS = ("h1", "h2", "h3", "h4")
TEXTS = ("p", "li", "td", "th")
# Neither engine's own: scripts, drawings, formulas, and what each writes in its own way around the text.
PASSED_OVER = ("script", "style", "svg", "math", "noscript", "nav", "footer", "header")
PASSED_CLASSES = {"hop", "callout-title", "callout-header", "toc-actions"}
VOID = ("br", "hr", "img", "input", "link", "meta", "col", "wbr", "source")
RENDERED_BY = "This document was rendered by"


@dataclass
class Page(HTMLParser):
    """What stands in a page's main part."""

    labels: set[str] = field(default_factory=set)
    headings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []  # the elements around, with "-" for one that is passed over

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "main" or (self._open and tag not in VOID):
            passed = tag in PASSED_OVER and not (tag == "header" and given.get("id") == "title-block-header")
            passed |= bool(PASSED_CLASSES & set((given.get("class") or "").split()))
            self._open.append("-" if passed else tag)
        if self._open:
            self.labels.add(given.get("id") or "")
        if self._seen(tag, HEADINGS):
            self.headings.append("")
        if self._seen(tag, TEXTS):
            self.texts.append("")

    def _seen(self, tag: str, kinds: tuple[str, ...]) -> bool:
        return bool(self._open) and "-" not in self._open and tag in kinds

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if "-" in self._open:
            return
        if any(tag in HEADINGS for tag in self._open):
            self.headings[-1] += data
        elif any(tag in TEXTS for tag in self._open):
            self.texts[-1] += data


def page(html: str) -> Page:
    found = Page()
    found.feed(html)
    return found


def titles(found: Page) -> list[str]:
    """The headings without their numbers."""
    return [re.sub(r"^[\d.]*\s*", "", " ".join(text.split())) for text in found.headings]


def numbers(found: Page) -> Counter[str]:
    """The numbers of paragraphs, lists and tables; the sentence that names the engine has other ones in each."""
    kept = [text for text in found.texts if RENDERED_BY not in text]
    return Counter(re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join(kept)))


OURS = """<body><nav><p>7</p></nav><main><h1 id="sec-a"><span class="number">1</span> Speed</h1>
<p>From 2 to 4<br>GPUs <math><mn>9</mn></math>.</p><div class="hop"><p>3 runs</p></div>
<figure id="tbl-b"><table><tr><td>1,234.5</td></tr></table></figure><footer><p>8</p></footer></main></body>"""
QUARTOS = """<body><header><p>7</p></header><main id="quarto-document-content"><header id="title-block-header">
<h1 class="title"><span class="chapter-number">1</span>&nbsp; <span id="sec-a">Speed</span></h1></header>
<p>From 2 to 4 GPUs <span class="math"><math><mn>9</mn></math></span>.</p><script>let x = 5;</script>
<div id="tbl-b"><table><tbody><tr><td>1,234.5</td></tr></tbody></table></div></main></body>"""


@pytest.mark.parametrize("html", [OURS, QUARTOS])
def test_what_counts_on_a_page(html: str) -> None:
    found = page(html)
    assert titles(found) == ["Speed"]
    assert {"sec-a", "tbl-b"} <= found.labels
    assert numbers(found) == {"2": 1, "4": 1, "1,234.5": 1}


def test_another_number_is_seen() -> None:
    assert numbers(page(OURS.replace("1,234.5", "1,234.6"))) != numbers(page(QUARTOS))


VERSION = command.quarto_version()
NEWEST_KNOWN = ".".join(map(str, command.QUARTO))


@pytest.mark.slow
@pytest.mark.skipif(VERSION < command.QUARTO, reason=f"Quarto {NEWEST_KNOWN} or newer is not installed")
def test_both_engines_make_the_same_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    books = [Book.read(ROOT, tmp_path_factory.mktemp(engine) / "_book") for engine in ("embedded", "quarto")]
    render(books[0], ["html"])
    assert command.run_quarto(books[1], ["html"]) == 0
    labels = re.compile(r"(?:#\| label: |\{#)((?:fig|tbl|eq|sec)-[\w-]+)")
    for chapter in books[0].chapters:
        declared = set(labels.findall((ROOT / chapter).read_text(encoding="utf-8")))
        ours, quartos = (
            page((book.output / chapter).with_suffix(".html").read_text(encoding="utf-8")) for book in books
        )
        assert ours.labels & declared == quartos.labels & declared == declared, chapter
        assert titles(ours) == titles(quartos), chapter
        assert numbers(ours) == numbers(quartos), chapter
