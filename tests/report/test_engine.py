"""The embedded engine on small books: numbers, references, outputs, and errors with file and line."""

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from report.chapter import Cell, parse
from report.engine import WIDTHS, Book, chapter_markdown, pandoc, put_back, render, set_aside
from report.sources import BookError
from tests.small_books import book, cell, text_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"><rect width="90" height="60"/></svg>'

FIRST = """# First {#sec-first}

## Part {#sec-part}

One plus one is `{python} 1 + 1`, a name `{python} "a_*b*"`, and [@he2016] says so. See @eq-line and @sec-second.
Of $1{,}234$ it is `{python} "94 %"`.

$$
y = a x + b
$$ {#eq-line}

## Loose {.unnumbered}

## Next part

### Deep {#sec-deep}
"""

SECOND = f"""# Second {{#sec-second}}

```{{python}}
#| label: fig-chart
#| fig-cap: "A *chart*."
from IPython.display import Markdown, display
display({{"text/html": "<div>chart for the page</div>", "image/svg+xml": '{SVG}'}}, raw=True)
```

```{{python}}
#| label: tbl-counts
#| tbl-cap: "Counts."
Markdown("| a | b |\\n|---|--:|\\n| x | 1 |")
```

```{{python}}
#| label: tbl-missing
#| tbl-cap: "Not measured."
Markdown("::: {{.callout-note}}\\nNothing yet.\\n:::")
```

```{{python}}
#| echo: true
import os
print(os.environ["DLPERF_ENGINE"])
```

::: {{.callout-note title="What was *run*" collapse="true"}}
```{{python}}
#| label: tbl-folded
#| tbl-cap: "Folded away."
Markdown("| c |\\n|--:|\\n| 7 |")
```
:::

::: {{.content-visible when-format="html"}}
Only on the web.
:::

::: {{.content-visible when-format="typst"}}
Only on paper.
:::

::: {{.callout-tip}}
## A title
The body, with @fig-chart, @tbl-counts, @eq-line, @sec-deep and @sec-second.
:::

$$
z = 0
$$ {{#eq-own}}

@eq-own
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Book:
    small = book(tmp_path_factory.mktemp("book"), first=FIRST, second=SECOND)
    render(small, ["html", "pdf"])
    return small


@pytest.fixture(scope="module")
def first(rendered: Book) -> str:
    return (rendered.output / "report/first.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def second(rendered: Book) -> str:
    return (rendered.output / "report/second.html").read_text(encoding="utf-8")


def test_paths_are_quartos(rendered: Book) -> None:
    assert rendered.pdf_name == "A-small-book--tested.pdf"
    assert (rendered.output / rendered.pdf_name).read_bytes().startswith(b"%PDF")
    assert (rendered.output / "index.html").exists()
    assert not [path.name for path in rendered.root.iterdir() if path.name.startswith(".book-")]


def test_headings_are_numbered_by_chapter(first: str, second: str) -> None:
    headings = [text_of(h) for h in re.findall(r"<h[1-3].*?</h[1-3]>", first, re.DOTALL)]
    assert headings == ["1 First", "1.1 Part", "Loose", "1.2 Next part", "1.2.1 Deep", "References"]
    assert "2 Second" in text_of(re.findall(r"<h1.*?</h1>", second, re.DOTALL)[0])
    assert "A title" not in "".join(re.findall(r"<h\d.*?</h\d>", second, re.DOTALL))


def test_references_have_numbers_and_targets(rendered: Book, first: str, second: str) -> None:
    links = dict(re.findall(r'<a\s+href="([^"]+)"\s+class="xref">([^<]+)</a>', second))
    assert {target: label.replace("\u00a0", " ") for target, label in links.items()} == {
        "#fig-chart": "Figure 2.1",
        "#tbl-counts": "Table 2.1",
        "../report/first.html#eq-line": "Equation 1.1",
        "../report/first.html#sec-deep": "Section 1.2.1",
        "#sec-second": "Chapter 2",
        "#eq-own": "Equation 2.1",
    }
    for target in links:
        page, label = target.split("#")
        assert f'id="{label}"' in (first if page else second)
    index = (rendered.output / "index.html").read_text(encoding="utf-8")
    assert re.search(r'href="report/first.html#sec-first"\s+class="xref">Chapter\u00a01<', index)


def test_captions_and_equations_carry_their_numbers(first: str, second: str) -> None:
    captions = [text_of(c).strip() for c in re.findall(r"<figcaption.*?</figcaption>", second, re.DOTALL)]
    assert captions == [
        "Figure 2.1: A chart.",
        "Table 2.1: Counts.",
        "Table 2.2: Not measured.",
        "Table 2.3: Folded away.",
    ]
    equation = first[first.index('id="eq-line"') :]
    assert "<math" in equation[:300]
    assert "(1.1)" in text_of(equation[: equation.index("</p>")])


def test_outputs_inline_values_callouts_and_citations(first: str, second: str) -> None:
    assert "One plus one is 2, a name a_*b*, and (He 2016) says so." in text_of(first)
    assert 'id="ref-he2016"' in first and 'id="ref-he2016"' not in second
    assert "<div>chart for the page</div>" in second and "<svg" not in second
    assert re.search(r'class="callout callout-tip">\s*<div class="callout-title">\s*<p>A title</p>', second)
    assert "DLPERF_ENGINE" in text_of(second) and "fig-cap" not in second
    assert "embedded" in text_of(re.findall(r'<pre class="output">.*?</pre>', second, re.DOTALL)[0])


def test_a_collapsed_callout_folds_what_it_holds(second: str) -> None:
    folded = second[second.index("<details") : second.index("</details>")]
    assert second.count("<details") == 1 and re.match(r'<details class="callout callout-note">\s*<summary', folded)
    title = re.search(r'<summary class="callout-title">(.*?)</summary>', folded, re.DOTALL)
    assert title and re.sub(r"\s+", " ", title[1]).strip() == "What was <em>run</em>"
    assert "Table\u00a02.3" in folded and 'id="tbl-folded"' in folded and "A title" not in folded


def test_a_page_shows_what_is_for_its_format_alone(second: str) -> None:
    assert "Only on the web." in text_of(second) and "Only on paper." not in text_of(second)


def test_inline_strings_are_escaped_as_in_quarto() -> None:
    output = nbformat.v4.new_output("execute_result", data={"text/plain": repr("a_b*, [x] $y$")})
    small = Book(Path(), Path(), "", "", "en", [], None, False)
    markdown = chapter_markdown(small, Path(), "a.qmd", [Cell(1, "x", {}, inline=True)], [[output]])
    assert "a\\_b\\*\\, \\[x\\] $y$" in markdown


def test_numbers_hold_together(first: str) -> None:
    assert "it is 94\u00a0%" in re.sub(r"\s*\n\s*", " ", first)
    assert re.search(r"<mn>1</mn><mtext[^>]*>,</mtext><mn>234</mn>", first)


def test_pages_load_nothing_from_elsewhere(first: str, second: str) -> None:
    for page in (first, second):
        assert not re.search(r'(?:src|<link[^>]* href)="(?:https?:)?//', page)


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext is not installed")
def test_pdf_has_the_same_numbers(rendered: Book) -> None:
    pdf = rendered.output / rendered.pdf_name
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    assert "Only on paper." in text and "Only on the web." not in text
    text = re.sub(r"[\s\u00a0]+", " ", text)
    for phrase in (
        "1 First", "1.2.1 Deep", "2 Second", "Figure 2.1: A chart.", "Table 2.1: Counts.", "(1.1)", "(2.1)",
        "with Figure 2.1, Table 2.1, Equation 1.1, Section 1.2.1 and Chapter 2", "One plus one is 2", "(He 2016)",
        "He, Kaiming. 2016.", "Contents", "Table 2.2: Not measured. Note Nothing yet.",
        "What was run Table 2.3: Folded away.",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "chart for the page" not in text


def test_sentences_get_the_room_that_words_leave_in_the_pdf() -> None:
    head = "| A | Text | B |\n|---|------|---|\n"
    short, long = (head + f"| 1 | {text} | 2 |" for text in ("Words.", "A sentence of words. " * 20))
    assert "%" not in pandoc("short", short, "--to=typst", WIDTHS)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", pandoc("long", long, "--to=typst", WIDTHS))]
    # Of 125 characters each short column takes its 3 and 2 more, 4 %; between columns 2 stay free, 6 in all.
    assert shares == pytest.approx([4, 90.4, 4], abs=0.01)


def test_no_page_of_the_pdf_parts_rows_from_what_the_first_column_says_once() -> None:
    weak, long = "| weak | 1 |\n|  | 2 |\n", "| long | 1 |\n" + 12 * "|  | 2 |\n"
    table = pandoc("t", f"| A | B |\n|---|---|\n{weak}| strong | 1 |\n{long}", "--to=typst", WIDTHS)
    assert re.findall(r"rowspan: (\d+)\)?\[(\w+)\]", table) == [("2", "weak")]  # 13 rows may be too many for a page
    assert table.count("[2]") == 13 and table.count("[],") == 12


def test_html_is_left_out_of_the_pdf_and_cells_write_files_of_the_book(tmp_path: Path) -> None:
    write = "import os, pathlib", "pathlib.Path(os.environ['DLPERF_BOOK'], 'rows.csv').write_text('a')", "None"
    table = "::: {#tbl-a}\n| a |\n|---|\n| 1 |\n\n```{=html}\n<div>under it</div>\n```\n\nOne.\n:::"
    small = book(tmp_path, a=f"{cell(*write)}\n{table}\n")
    render(small, ["html", "pdf"])
    assert (small.output / "rows.csv").read_text() == "a"
    assert "<div>under it</div>" in (small.output / "report/a.html").read_text()


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (cell("#| label: fig-a", '#| fig-cap: "A"', "#| fig-width: 3", "1"), 6, "fig-width"),
        (cell("#| label: fig-a", "1"), 4, "fig-cap"),
        (cell("#| label: [", "1"), 4, "unknown cell option"),
        ("# T\n\n```{r}\n1\n```\n", 3, "{r}"),
        ("# T\n\n```{python echo=true}\n1\n```\n", 3, "options"),
        ("# T\n\n::: {.panel-tabset}\nx\n:::\n", 3, "panel-tabset"),
        ('# T\n\n::: {.callout-note collapse="maybe"}\nx\n:::\n', 3, "collapse"),
        ('# T\n\n::: {.callout-note appearance="simple"}\nx\n:::\n', 3, "appearance"),
        ('# T\n\n::: {.content-visible when-format="docx"}\nx\n:::\n', 3, "content-visible"),
        ("# T\n\n::: {.callout-note}\nx\n", 3, "not closed"),
        ("# T\n\nx\n\n:::\n", 5, "closes no block"),
        ("# T\n\n{{< video a.mp4 >}}\n", 3, "shortcodes"),
        ("---\ntitle: T\n---\n", 1, "front matter"),
        ("# T\n\n```{python}\n1\n", 3, "not closed"),
    ],
)
def test_unknown_features_are_named_with_file_and_line(source: str, line: int, message: str) -> None:
    with pytest.raises(BookError, match=rf"^report/a\.qmd:{line}: .*{re.escape(message)}") as error:
        parse("report/a.qmd", source)
    assert error.value.code == 2


def test_verbatim_code_is_left_alone() -> None:
    source = "# T\n\n````\n```{r}\n{{< x >}}\n::: {.y}\n`{python} 1`\n```\n````\n"
    assert "".join(part for part in parse("a.qmd", source) if isinstance(part, str)) == source


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("See @fig-none.", 3, "@fig-none has no such label"),
        ("Text.\n\nSee @thm-one.", 5, "@thm-one is neither"),
        ("See [@nobody2000].", 3, "@nobody2000 is neither"),
        ("$$\nx\n$$ {#eq-a}\n\n$$\ny\n$$ {#eq-a}", 5, "label eq-a is used twice"),
        ("![x](https://example.org/a.png)", 3, "images must be files"),
        ("## Part {.appendix}", 3, "unknown class .appendix"),
        ("Text and\n[small]{.aside}.", 4, "unknown class .aside"),
        ('![x](a.png){fig-align="left"}', 3, "unknown attribute fig-align"),
    ],
)
def test_references_without_target_are_errors(tmp_path: Path, text: str, line: int, message: str) -> None:
    small = book(tmp_path, a=f"# T\n\n{text}\n")
    with pytest.raises(BookError, match=rf"^report/a\.qmd:{line}: {re.escape(message)}") as error:
        render(small, ["html"])
    assert error.value.code == 2
    assert not small.output.exists()


def shown(folder: Path, **data: str) -> str:
    """A chapter of one cell with one display; underscores in the types' names stand for slashes."""
    small = book(folder, a="# T\n")
    output = nbformat.v4.new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})
    return chapter_markdown(small, folder, "report/a.qmd", [Cell(4, "x", {})], [[output]])


def test_a_picture_is_in_both_formats(tmp_path: Path) -> None:
    assert "\n![](a_files/1.png)\n" in shown(tmp_path, image_png="aGVsbG8=", text_plain="<Image>")
    assert (tmp_path / "book/report/a_files/1.png").read_bytes() == b"hello"


def test_fences_outgrow_what_they_hold(tmp_path: Path) -> None:
    assert "\n```` {.output}\n```\n````\n" in shown(tmp_path, text_plain="```")


def test_output_that_the_pdf_would_miss_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BookError, match=r"^report/a\.qmd:4: .*HTML"):
        shown(tmp_path, text_html="<b>x</b>", text_plain="x")


def test_no_chapter_sees_the_variables_of_another(tmp_path: Path) -> None:
    cells = {name: cell("seen = 'left' in globals()", "left = 1", "seen") for name in ("a", "b", "c")}
    small = book(tmp_path, **cells)  # three chapters for two kernels
    render(small, ["html"])
    for name in cells:
        assert "False" in text_of((small.output / f"report/{name}.html").read_text())


def test_html_comes_back_where_it_was() -> None:
    pieces: list[str] = []
    markdown = "A\n\n``` {=html}\n<b>1</b>\n```\n\n```` {=html}\n```\n````\n"
    marked = set_aside(markdown, pieces)
    assert pieces == ["<b>1</b>", "```"] and "<b>" not in marked
    assert put_back("<p><!--piece 1--></p><!--piece 0-->", pieces) == "<p>```</p><b>1</b>"
