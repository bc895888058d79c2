"""The embedded engine: renders the book's chapters where Quarto can't be installed, from Python wheels alone.

nbclient executes the chapters' cells, pandoc with citeproc and `filter.lua` writes HTML and Typst, and typst the PDF. It
knows the Quarto features that the chapters use and stops at any other, naming file and line.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pypandoc
import typst
import vl_convert
import yaml

HERE = Path(__file__).resolve().parent
OPTIONS = {"label", "fig-cap", "tbl-cap", "echo"}
CALLOUTS = {f"callout-{kind}" for kind in ("note", "tip", "warning", "important", "caution")}
READER = "markdown-auto_identifiers+gfm_auto_identifiers"
INLINE = re.compile(r"(?<!`)`\{python\}[ \t]([^`]+)`(?!`)")
FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(.*?)\s*$")
DIV = re.compile(r"\s*:{3,}\s*(.*?)\s*:*$")
PARALLEL = 2  # chapters executed, and pages written, at a time


class BookError(Exception):
    """The book can't be rendered; `code` is the exit status: 2 for a wrong source, 1 for a failing cell."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass
class Book:
    """What the engine reads from `_quarto.yml`; paths in `chapters` are relative to `root`."""

    root: Path
    output: Path
    title: str
    author: str
    lang: str
    chapters: list[str]
    bibliography: str | None
    echo: bool

    @classmethod
    def read(cls, root: Path, output: Path | None = None) -> Book:
        """Raises BookError where `_quarto.yml`, or a file that it names, is missing or can't be read."""
        try:
            config = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
            book = config["book"]
            folder = output or root / config["project"].get("output-dir", "_book")
            bibliography = config.get("bibliography")
            echo = config.get("execute", {}).get("echo", True)
            title, author, lang = book["title"], book.get("author", ""), config.get("lang", "en")
            chapters = list(book["chapters"])
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise BookError(f"{root / '_quarto.yml'}: no readable book: {error!r}") from error
        for name in [*chapters, *([bibliography] if bibliography else [])]:
            if not (root / name).is_file():
                raise BookError(f"{root / '_quarto.yml'}: {name} does not exist")
        return cls(root, folder.resolve(), title, author, lang, chapters, bibliography, echo)

    @property
    def pdf_name(self) -> str:
        """The file name that Quarto gives the PDF of a book."""
        return re.sub(r"[ <>()|:&;#?*'\\/]", "-", self.title) + ".pdf"


@dataclasses.dataclass
class Cell:
    """A code cell or inline expression, and the line of the chapter on which its code starts."""

    line: int
    source: str
    options: dict[str, Any]
    inline: bool = False


# ---- reading -------------------------------------------------------------------------------------------------------


def parse(path: Path, name: str) -> list[str | Cell]:
    """A chapter's text and cells in order. Raises BookError at what the engine doesn't know."""
    parts: list[str | Cell] = []
    fence, fence_line, cell_lines, divs = "", 0, None, []
    lines = path.read_text(encoding="utf-8").splitlines()

    def fail(line: int, what: str) -> BookError:
        return BookError(f"{name}:{line}: {what}")

    if lines and lines[0].strip() == "---":
        raise fail(1, "front matter is not known to the embedded engine; a chapter's title is its first heading")
    for number, line in enumerate(lines, 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
                if cell_lines is not None:
                    parts.append(cell(name, fence_line + 1, cell_lines))
                    cell_lines = None
                    continue
            if cell_lines is not None:
                cell_lines.append(line)
            else:
                parts.append(line + "\n")
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, fence_line = mark[1], number
            if mark[2].startswith("{python"):
                if mark[2] != "{python}":
                    raise fail(number, "cell options belong on #| lines")
                cell_lines = []
            elif re.match(r"\{\w", mark[2]):
                raise fail(number, f"unknown engine {mark[2]}; only {{python}} cells can run")
            else:
                parts.append(line + "\n")
        else:
            if "{{<" in line:
                raise fail(number, "shortcodes are not known to the embedded engine")
            if div := DIV.match(line):
                if div[1]:
                    classes = re.findall(r"\.([\w-]+)", re.sub(r'"[^"]*"', "", div[1])) if "{" in div[1] else [div[1]]
                    labelled = re.match(r"\{#(fig|tbl)-", div[1])
                    if unknown := [c for c in classes if c not in CALLOUTS]:
                        raise fail(number, f"unknown block class {unknown[0]}")
                    if not classes and not labelled:
                        raise fail(number, f"unknown block {div[1]}")
                    divs.append(number)
                elif divs:
                    divs.pop()
                else:
                    raise fail(number, "::: closes no block")
            end = 0
            for match in INLINE.finditer(line):
                parts += [line[end : match.start()], Cell(number, match[1].strip(), {}, inline=True)]
                end = match.end()
            parts.append(line[end:] + "\n")
    if fence or divs:
        raise fail(fence_line if fence else divs[-1], "block is not closed")
    return parts


def cell(name: str, line: int, lines: list[str]) -> Cell:
    """A cell with its `#|` options, checked."""
    count = next((i for i, text in enumerate(lines) if not text.startswith("#|")), len(lines))
    try:
        options = yaml.safe_load("\n".join(text[2:].removeprefix(" ") for text in lines[:count])) or {}
    except yaml.YAMLError as error:
        raise BookError(f"{name}:{line}: cell options are not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(options, dict) or set(options) - OPTIONS:
        unknown = sorted(set(options) - OPTIONS)[0]
        at = next((i for i, text in enumerate(lines[:count]) if unknown in text), 0)
        raise BookError(f"{name}:{line + at}: unknown cell option {unknown}; known are {', '.join(sorted(OPTIONS))}")
    for kind in ("fig", "tbl"):
        if (f"{kind}-cap" in options) != str(options.get("label", "")).startswith(f"{kind}-"):
            raise BookError(f"{name}:{line}: a {kind}- label and {kind}-cap need each other")
    return Cell(line, "\n".join(lines), options)


# ---- executing -----------------------------------------------------------------------------------------------------


async def execute(book: Book, chapters: dict[str, list[str | Cell]]) -> dict[str, list[Any]]:
    """Run each chapter's cells in a kernel of its own; the outputs of each cell, in order."""
    path = os.pathsep.join(filter(None, [str(book.root), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"DLPERF_ENGINE": "embedded", "PYTHONPATH": path}
    limit = asyncio.Semaphore(PARALLEL)

    async def run(name: str) -> list[Any]:
        cells = [part for part in chapters[name] if isinstance(part, Cell)]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part.source) for part in cells])
        client = nbclient.NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": str(book.root)}},
            extra_arguments=["--HistoryManager.enabled=False"],
        )
        async with limit:
            try:
                if cells:
                    await client.async_execute(env=environment)
            except nbclient.exceptions.CellExecutionError as error:
                failed = next(i for i, c in enumerate(notebook.cells) if any(o.output_type == "error" for o in c.outputs))
                traceback = re.sub(r"\x1b\[[\d;]*m", "", error.traceback)
                inside = re.search(r"(?:Cell|Input) In ?\[\d+\](?:, |:)line (\d+)", traceback)
                line = cells[failed].line + (int(inside[1]) - 1 if inside else 0)
                raise BookError(f"{traceback.rstrip()}\n{name}:{line}: the cell failed: {error.ename}", 1) from error
            except RuntimeError as error:  # nbclient: the kernel did not start, died or hung
                raise BookError(f"{name}: {error}", 1) from error
        return [c.outputs for c in notebook.cells]

    results = await asyncio.gather(*(run(name) for name in chapters), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return dict(zip(chapters, results, strict=True))  # type: ignore[arg-type]


def inline_text(name: str, part: Cell, outputs: list[Any]) -> str:
    """An inline expression's value as Quarto puts it: Markdown as it is, a string escaped, else its repr."""
    data: dict[str, str] = next((o.data for o in outputs if o.output_type == "execute_result"), {})
    text = data.get("text/markdown", data.get("text/plain"))
    if text is None:
        raise BookError(f"{name}:{part.line}: the inline expression {part.source} has no value")
    if "text/markdown" not in data and text[0] in "'\"":
        return re.sub(r"([\\`*_{}\[\]()<>#+\-.!$@~^|])", r"\\\1", ast.literal_eval(text))
    return text


class Writer:
    """Writes a chapter's Markdown, and its pictures to the build folder."""

    def __init__(self, book: Book, build: Path, name: str) -> None:
        self.book, self.build, self.name, self.pictures = book, build, name, 0

    def picture(self, folder: Path, suffix: str, content: bytes) -> Path:
        self.pictures += 1
        path = folder / f"picture-{self.pictures}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def output(self, part: Cell, data: dict[str, str]) -> str:
        """A display's Markdown; a chart is HTML on the page and an image in the PDF."""
        stem = Path(self.name).with_suffix("")
        image = None
        if "text/markdown" in data:
            return data["text/markdown"]
        for mime, suffix in (("image/svg+xml", "svg"), ("image/png", "png")):
            if mime in data:
                content = data[mime].encode() if suffix == "svg" else base64.b64decode(data[mime])
                if "text/html" not in data:
                    path = self.picture(self.build / "book" / f"{stem}_files", suffix, content)
                    return f"![]({path.parent.name}/{path.name})"
                image = self.picture(self.build / "charts" / stem, suffix, content)
                break
        if image and "text/html" in data:
            typ = f'#chart("/{image.relative_to(self.build).as_posix()}")'
            return f"{raw('=html', data['text/html'])}\n\n{raw('=typst', typ)}"
        if "text/plain" in data and "text/html" not in data:
            return raw(".output", data["text/plain"])
        raise BookError(f"{self.name}:{part.line}: output as {', '.join(data)}; the PDF needs Markdown or an image")

    def blocks(self, part: Cell, outputs: list[Any]) -> Iterator[str]:
        if part.options.get("echo", self.book.echo):
            yield raw(".python", re.sub(r"^#\|.*\n?", "", part.source, flags=re.MULTILINE).strip())
        for output in outputs:
            if output.output_type != "stream":
                yield self.output(part, output.data)
            elif output.name == "stdout":
                yield raw(".output", output.text.rstrip())
            else:
                print(f"{self.name}:{part.line}: {output.text.rstrip()}", file=sys.stderr)

    def markdown(self, parts: list[str | Cell], outputs: list[Any]) -> str:
        text, results = "", iter(outputs)
        for part in parts:
            if isinstance(part, str):
                text += part
            elif part.inline:
                text += inline_text(self.name, part, next(results))
            else:
                options = part.options
                body = "\n\n".join(self.blocks(part, next(results)))
                if caption := options.get("fig-cap", options.get("tbl-cap")):
                    body = f"::: {{#{options['label']}}}\n{body}\n\n{caption}\n:::"
                text += f"\n{body}\n\n"
        page = Path(self.name).with_suffix(".html").as_posix()
        return f'::: {{file="{self.name}" page="{page}"}}\n{text}\n:::\n\n'


def raw(kind: str, text: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence} {{{kind}}}\n{text}\n{fence}"


# ---- writing -------------------------------------------------------------------------------------------------------


def pandoc(what: str, text: str, *arguments: str | Path) -> str:
    """Pandoc with the filter; a warning is an error, since it means that the page is not what the source says."""
    command = [pypandoc.get_pandoc_path(), "--lua-filter", str(HERE / "filter.lua"), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
    if done.returncode or done.stderr:
        raise BookError(f"{what}: pandoc: {done.stderr.strip()}")
    return done.stdout


def number(book: Book, markdown: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole book as pandoc's JSON, numbered and with its references resolved, and its chapters' titles."""
    bibliography = ["--metadata", f"bibliography={book.root / book.bibliography}"] if book.bibliography else []
    document = json.loads(pandoc("the book", markdown, "--from", READER, "--to", "json", *bibliography))
    contents = json.loads(document["meta"]["book"]["c"])
    for problem in contents["problems"]:
        lines = (book.root / problem["file"]).read_text(encoding="utf-8").splitlines()
        found = next((f":{i}" for i, line in enumerate(lines, 1) if problem["needle"] in line), "")
        raise BookError(f"{problem['file']}{found}: {problem['message']}")
    return document, contents["chapters"]


def write_page(book: Book, document: dict[str, Any], chapters: list[dict[str, Any]], place: int, folder: Path) -> None:
    """One chapter's HTML page."""
    chapter = chapters[place]
    root = "../" * chapter["page"].count("/")
    source = json.dumps(document | {"blocks": document["blocks"][place]["c"][1]})
    entries = [c | {"current": c is chapter, "page": root + c["page"]} for c in chapters]
    variables = {
        "book": book.title, "author": book.author, "lang": book.lang, "pagetitle": f"{chapter['title']} – {book.title}",
        "root": root, "page": chapter["page"], "chapters": entries, "vega": "vegaEmbed" in source,
        "previous": entries[place - 1] if place else False, "next": (entries[place + 1 :] or [False])[0],
        "pdf": root + book.pdf_name,
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as metadata:
        json.dump(variables, metadata)
        metadata.flush()
        page = pandoc(
            chapter["file"], source, "--from", "json", "--to", "html5", "--mathml", "--citeproc", "--toc", "--toc-depth=3",
            "--template", HERE / "page.html", "--metadata-file", metadata.name,
        )  # fmt: skip
    target = folder / chapter["page"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")


def write_pdf(book: Book, document: dict[str, Any], build: Path) -> None:
    blocks = [block for chapter in document["blocks"] for block in chapter["c"][1]]
    source = build / "book.typ"
    source.write_text(
        pandoc(
            "the PDF", json.dumps(document | {"blocks": blocks}), "--from", "json", "--to", "typst", "--citeproc",
            "--template", HERE / "book.typ", "--metadata", f"title={book.title}", "--metadata", f"author={book.author}",
            "--metadata", f"lang={book.lang[:2]}", "--metadata", "reference-section-title=References",
        ),
        encoding="utf-8",
    )  # fmt: skip
    try:
        typst.compile(source, output=build / "book" / book.pdf_name, root=build, ignore_system_fonts=True)
    except typst.TypstError as error:
        raise BookError(f"the PDF: typst: {error.diagnostic}") from error


def render(book: Book, formats: list[str]) -> None:
    """Render into a folder beside the output and then take its place. Raises BookError."""
    chapters = {name: parse(book.root / name, name) for name in book.chapters}
    book.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{book.output.name}-", dir=book.output.parent) as folder:
        build = Path(folder)
        (build / "book").mkdir()
        outputs = asyncio.run(execute(book, chapters))
        markdown = "".join(Writer(book, build, name).markdown(chapters[name], outputs[name]) for name in chapters)
        document, contents = number(book, markdown)
        with ThreadPoolExecutor(PARALLEL) as pool:
            jobs = [pool.submit(write_pdf, book, document, build)] if "pdf" in formats else []
            if "html" in formats:
                for place in range(len(contents)):
                    jobs.append(pool.submit(write_page, book, document, contents, place, build / "book"))
                vega = build / "book" / "site_libs" / "vega" / "vega.js"
                vega.parent.mkdir(parents=True)
                vega.write_text(vl_convert.javascript_bundle(), encoding="utf-8")
                shutil.copy(HERE / "style.css", vega.parents[1])
            for job in jobs:
                job.result()
        if book.output.exists():
            book.output.rename(build / "old")
        (build / "book").rename(book.output)
