"""The embedded engine on small books: numbers, references, errors with file and line, and a whole output or none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from experiments.store.files import HOST, ROOT
from report import __main__ as command
from report.chapter import Cell, parse
from report.engine import WIDTHS, Book, chapter_markdown, pandoc, put_back, render, set_aside
from report.output import LIST, put
from report.sources import BookError

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
BIBLIOGRAPHY = """@article{he2016,
  author = {He, Kaiming}, title = {Residual Learning}, journal = {Journal}, year = {2016}
}
"""


def book(folder: Path, **chapters: str) -> Book:
    """A book of a preface and these chapters in `folder`."""
    files = {"index.qmd": "# Preface {.unnumbered}\n\nSee @sec-first.\n"} if "first" in chapters else {}
    files |= {f"report/{name}.qmd": text for name, text in chapters.items()}
    (folder / "report").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    config = {
        "project": {"type": "book", "output-dir": "_book"},
        "book": {"title": "A small book: tested", "author": "Someone", "chapters": list(files)},
        "bibliography": "references.bib",
        "execute": {"echo": False},
    }
    (folder / "_quarto.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return Book.read(folder)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).replace("\u00a0", " ")


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


def test_html_is_left_out_of_the_pdf_and_cells_write_files_of_the_book(tmp_path: Path) -> None:
    write = "import os, pathlib", "pathlib.Path(os.environ['DLPERF_BOOK'], 'rows.csv').write_text('a')", "None"
    table = "::: {#tbl-a}\n| a |\n|---|\n| 1 |\n\n```{=html}\n<div>under it</div>\n```\n\nOne.\n:::"
    small = book(tmp_path, a=f"{cell(*write)}\n{table}\n")
    render(small, ["html", "pdf"])
    assert (small.output / "rows.csv").read_text() == "a"
    assert "<div>under it</div>" in (small.output / "report/a.html").read_text()


def cell(*lines: str) -> str:
    return "\n".join(["# T", "", "```{python}", *lines, "```", ""])


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


def test_a_failing_cell_fails_the_render_and_keeps_the_old_book(tmp_path: Path) -> None:
    small = book(tmp_path, good="# Good\n", bad=cell("#| echo: false", "x = 1", "x / 0"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "index.html").write_text("old", encoding="utf-8")
    put(made, small.output, ["html"], "a.pdf")
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert error.value.code == 1
    assert "Traceback (most recent call last)" in str(error.value)
    assert str(error.value).endswith("report/bad.qmd:6: the cell failed: ZeroDivisionError: division by zero")
    assert sorted(path.name for path in small.output.iterdir()) == [LIST, "index.html"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".book-")]


def test_all_failing_chapters_are_told_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = book(tmp_path, a=cell("1 / 0"), b=cell("import nothing_of_that_name"), c="# Good\n")
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert "report/a.qmd:4: the cell failed: ZeroDivisionError" in str(error.value)
    assert "report/b.qmd:4: the cell failed: ModuleNotFoundError: No module named" in str(error.value)
    assert capfd.readouterr() == ("", "")  # a chapter without cells needs no kernel, and the others failed


def test_ctrl_c_ends_the_kernels_and_says_one_line(tmp_path: Path) -> None:
    """In a process of its own, whose only cell waits; it says so by a file."""
    book(
        tmp_path, a=cell("import time, pathlib", f"pathlib.Path({str(tmp_path / 'here')!r}).touch()", "time.sleep(60)")
    )
    code = f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from experiments.cli import exit_status
        from report.engine import Book, render
        small = Book.read(Path({str(tmp_path)!r}))
        raise SystemExit(exit_status("report", lambda: render(small, ["html"]) or 0, "the book is as it was"))
    """
    (tmp_path / "temporary").mkdir()
    settings = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=settings, start_new_session=True)
    while not (tmp_path / "here").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "report: interrupted; the book is as it was\n"
    assert process.returncode == 130 and not (tmp_path / "_book").exists()
    assert not list((tmp_path / "temporary").glob("book-*"))


def test_a_failing_inline_expression_is_named(tmp_path: Path) -> None:
    small = book(tmp_path, bad="# T\n\nText\nand `{python} nothing`.\n")
    with pytest.raises(
        BookError, match=r"report/bad\.qmd:4: the cell failed: NameError: name 'nothing' is not defined$"
    ):
        render(small, ["html"])


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


def test_only_a_book_is_replaced(tmp_path: Path) -> None:
    small = book(tmp_path, a="# T\n")
    small.output.mkdir()
    (small.output / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BookError, match="holds something else"):
        render(small, ["html"])


def test_missing_chapter_is_named(tmp_path: Path) -> None:
    book(tmp_path, a="# T\n")
    (tmp_path / "report/a.qmd").unlink()
    with pytest.raises(BookError, match=r"report/a\.qmd is not a file of the book"):
        Book.read(tmp_path)


def fake_quarto(folder: Path, version: str, code: int = 0) -> Path:
    """A quarto that answers its version and writes its arguments down."""
    program = folder / "quarto"
    script = f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\necho "$@" "$QUARTO_PYTHON" > {folder}/log\n'
    program.write_text(f"{script}exit {code}\n", encoding="utf-8")
    program.chmod(0o755)
    return folder / "log"


def test_quarto_renders_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_quarto(tmp_path, "1.10.3", code=7)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert command.main(["--to", "pdf", "--output-dir", str(tmp_path / "out")]) == 7
    assert re.match(r"render .* --output-dir .*/book --to typst .*python", log.read_text(encoding="utf-8"))
    assert not (tmp_path / "out").exists()


def test_an_old_quarto_is_named_where_the_embedded_engine_steps_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_quarto(tmp_path, "1.9.2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done: list[list[str]] = []
    monkeypatch.setattr(command, "render", lambda book, formats: done.append(formats))
    assert command.main(["--to", "pdf"]) == 0 and done == [["pdf"]]
    captured = capsys.readouterr()
    assert "version 1.9.2 is on PATH; the embedded engine renders instead" in captured.err
    assert "with the embedded engine" in captured.out


@pytest.mark.parametrize("version", ["1.9.2", None])
def test_engine_quarto_without_quarto_says_so(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if version:
        fake_quarto(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere" if not version else f"{tmp_path}:/bin")
    assert command.main(["--engine", "quarto"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (f"version {version}" if version else "none") in error and "--engine embedded" in error


def interrupted(folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    """A render that got a signal while a cell ran."""
    small = book(
        folder, a=cell("import pathlib, time", f"pathlib.Path({str(folder / 'began')!r}).touch()", "time.sleep(60)")
    )
    code = f"""
        import signal, sys
        from pathlib import Path
        from report import __main__ as command
        from report.engine import Book
        signal.signal(signal.SIGINT, signal.default_int_handler)
        small = Book.read(Path({str(small.root)!r}))
        command.Book.read = lambda *_: small
        sys.exit(command.main(["--engine", "embedded", "--to", "html"]))
    """
    command_line = [sys.executable, "-c", textwrap.dedent(code)]
    render_ = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    render_.send_signal(number)
    out, err = render_.communicate(timeout=30)
    return subprocess.CompletedProcess(command_line, render_.returncode, out, err)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
    ],
)
def test_a_signal_ends_the_render_in_one_line(tmp_path: Path, number: int, status: int, word: str) -> None:
    done = interrupted(tmp_path, number)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"report: {word}; the book is as it was\n")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".book-", "_book"))]


def test_an_endless_cell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.execution.CELL_TIMEOUT", 1)
    small = book(tmp_path, a="# T\n\nIt is `{python} 1`.\n\n```{python}\nwhile True:\n    pass\n```\n")
    with pytest.raises(BookError, match=r"^report/a\.qmd:6: the cell took more than 1 s$"):
        render(small, ["html"])


def test_a_damaged_results_file_is_told_in_one_line(tmp_path: Path) -> None:
    fail = "from experiments.store.parquet import SchemaError", "raise SchemaError('a.parquet: is damaged')"
    small = book(tmp_path, a=cell(*fail))
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert str(error.value) == "report/a.qmd:5: the cell failed: SchemaError: a.parquet: is damaged"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"book": 3}, "no readable book"),
        ({"book": {"title": ["x"]}}, "title must be text, not ['x']"),
        ({"book": {"author": 3}}, "book.author must be a name, or a list of names"),
        ({"book": {"chapters": 5}}, "no readable book"),
        ({"book": {"chapters": [{"part": "x"}]}}, "is not a file of the book"),
        ({"lang": 3}, "lang must be text, not 3"),
        ({"execute": {"echo": "often"}}, "echo must be true or false, not 'often'"),
        ({"project": {"output-dir": 7}}, "no readable book"),
        ({"project": []}, "no readable book"),
        ({"bibliography": ["references.bib"]}, "is not a file of the book"),
    ],
)
def test_wrong_types_in_the_configuration(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    small = book(tmp_path, a="# T\n")
    config = yaml.safe_load((small.root / "_quarto.yml").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "_quarto.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(BookError) as error:
        Book.read(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value) and error.value.code == 2


@pytest.mark.parametrize("name", ["_quarto.yml", "report/a.qmd"])
def test_sources_in_another_encoding(tmp_path: Path, name: str) -> None:
    small = book(tmp_path, a="# T\n")
    (tmp_path / name).write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(BookError, match=rf"{re.escape(name)}:1: not UTF-8 \(byte 0xf6\)"):
        render(Book.read(small.root), ["html"])


def test_leftovers_of_killed_renders_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = book(tmp_path, a="# T\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = subprocess.Popen(["true"])
    done.wait()  # its process number is now nobody's
    dead, live, foreign = (f"book-{host}-{pid}-x" for host, pid in
                           [(HOST, done.pid), (HOST, os.getppid()), ("0badc0de", done.pid)])  # fmt: skip
    for name in (dead, live, foreign):
        (tmp_path / name / "book").mkdir(parents=True)
    render(small, ["html"])
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("book-")} == {live, foreign}


def test_a_killed_pandoc_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "pandoc"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("report.surroundings.pandoc_path", lambda: killed)
    with pytest.raises(BookError, match=r"^the book: pandoc: was killed by signal 9$"):
        pandoc("the book", "x")
