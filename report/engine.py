"""The embedded engine: renders the book's chapters where Quarto can't be installed, from Python wheels alone.

nbclient executes the chapters' cells, pandoc with citeproc and two Lua filters writes HTML and Typst, typst the PDF.
It knows the Quarto features that the chapters use and stops at any other, naming file and line.
"""

import asyncio
import base64
import dataclasses
import json
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import nbclient
import nbformat
import typst
import vl_convert
import yaml

from report import kernels, output, sources, surroundings
from report.sources import BookError

HERE = Path(__file__).resolve().parent
OPTIONS = {"label", "fig-cap", "tbl-cap", "echo"}
BLOCK = re.compile(
    r"\{(#(fig|tbl)-[\w-]+|\.content-visible\s+when-format=\"(html|typst)\""
    r"|\.callout-(note|tip|important|warning|caution)(\s+(title=\"[^\"]*\"|collapse=\"(true|false)\"))*)\}"
)
WIDTHS = f"--lua-filter={HERE / 'widths.lua'}"  # of a table's columns in the PDF
INLINE = re.compile(r"(?<!`)`\{python\}[ \t]([^`]+)`(?!`)")
PARALLEL = 2  # chapters executed, and files written, at a time


@dataclasses.dataclass
class Book:
    """What the engine reads from `_quarto.yml`; chapters and bibliography are paths relative to `root`."""

    root: Path
    output: Path
    title: str
    author: str
    lang: str
    chapters: list[str]
    bibliography: str | None
    echo: bool

    @classmethod
    def read(cls, root: Path, output: Path | None = None) -> "Book":
        """Raises BookError where `_quarto.yml` or a file that it names is missing or can't be read."""
        source = root / "_quarto.yml"
        try:
            config = yaml.safe_load(source.read_text(encoding="utf-8"))
            folder = output or root / config["project"].get("output-dir", "_book")
            title, author = config["book"]["title"], sources.authors(config["book"]["author"])
            lang = config.get("lang", "en")
            chapters, bibliography = list(config["book"]["chapters"]), config.get("bibliography")
            echo = config.get("execute", {}).get("echo", True)
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise BookError(f"{source}: no readable book: {error!r}") from error
        for name in [*chapters, *([bibliography] if bibliography else [])]:
            if not isinstance(name, str) or not (root / name).is_file():
                raise BookError(f"{source}: {name} is not a file of the book")
        return cls(root, folder.resolve(), title, author, lang, chapters, bibliography, echo)

    @property
    def pdf_name(self) -> str:
        """The file name that Quarto gives the PDF of a book."""
        return re.sub(r"[ <>()|:&;#?*'\\/]", "-", self.title) + ".pdf"


@dataclasses.dataclass
class Cell:
    """A code cell or an inline expression; `line` is the chapter's line on which the code starts."""

    line: int
    source: str
    options: dict[str, Any]
    inline: bool = False


def parse(name: str, source: str) -> list[str | Cell]:
    """A chapter's text and cells in order. Raises BookError at what the engine doesn't know."""

    def fail(line: int, what: str) -> NoReturn:
        raise BookError(f"{name}:{line}: {what}")

    parts: list[str | Cell] = []
    fence, fence_line = "", 0
    code: list[str] | None = None
    blocks: list[int] = []  # the lines on which the open ones start
    lines, titles = source.splitlines(), 0
    for number, line in enumerate(lines, 1):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*([^`]*?)\s*$", line)
        if fence:
            closing = mark and mark[1].startswith(fence) and not mark[2]
            fence = "" if closing else fence
            if code is None:
                parts.append(line + "\n")
            elif closing:
                parts.append(Cell(fence_line + 1, "\n".join(code), cell_options(code, fence_line + 1, fail)))
                code = None
            else:
                code.append(line)
            continue
        if mark:
            fence, fence_line, code = mark[1], number, [] if mark[2] == "{python}" else None
            if code is None and re.match(r"\{\w", mark[2]):
                fail(number, f"unknown code block {mark[2]}; known is {{python}}, with its options on #| lines")
        elif (number == 1 and line.rstrip() == "---") or "{{<" in line:
            fail(number, "the embedded engine knows neither front matter nor shortcodes")
        elif block := re.match(r"\s*:{3,}\s*(.*?)\s*:*$", line):
            if block[1] and not BLOCK.fullmatch(block[1]):
                fail(number, f"unknown block {block[1]}")
            if not block[1] and not blocks:
                fail(number, "::: closes no block")
            blocks = [*blocks, number] if block[1] else blocks[:-1]
        elif not blocks and sources.is_title(line, *(("", *lines, "")[i] for i in (number - 1, number + 1))):
            titles += 1
            if titles > 1:
                fail(number, "a second heading of level 1; make it level 2, or a chapter of its own")
        if code is None:
            end = 0
            for match in INLINE.finditer(line):
                parts += [line[end : match.start()], Cell(number, match[1].strip(), {}, inline=True)]
                end = match.end()
            parts.append(line[end:] + "\n")
    if fence or blocks:
        fail(fence_line if fence else blocks[-1], "the block is not closed")
    return parts


def cell_options(code: list[str], line: int, fail: Any) -> dict[str, Any]:
    """The checked options in a cell's leading `#|` lines."""
    count = next((i for i, text in enumerate(code) if not text.startswith("#|")), len(code))
    options: dict[str, Any] = {}
    for i, text in enumerate(code[:count]):
        try:
            option = yaml.safe_load(text.removeprefix("#|"))
        except yaml.YAMLError:
            option = None
        if not isinstance(option, dict) or not set(option) <= OPTIONS:
            fail(line + i, f"unknown cell option {text}; known are {', '.join(sorted(OPTIONS))}, each on one line")
        options |= option
    for kind in ("fig", "tbl"):
        if (f"{kind}-cap" in options) != str(options.get("label", "")).startswith(f"{kind}-"):
            fail(line, f"{kind}-cap and a label that starts with {kind}- need each other")
    return options


async def execute(book: Book, build: Path, chapters: dict[str, list[str | Cell]]) -> list[list[Any]]:
    """Run each chapter in a kernel of its own; for each chapter, the outputs of its cells in order. Files that cells
    write for the book (`report.hop`) go to `build`/book."""
    pandoc_version = surroundings.run_pandoc(["--version"]).stdout.split()[1]
    own = {"DLPERF_ENGINE": "embedded", "DLPERF_BOOK": str(build / "book"), "DLPERF_PANDOC": pandoc_version}
    environment = surroundings.environment(build / "home") | own | {"PYTHONPATH": str(book.root)}
    limit = asyncio.Semaphore(PARALLEL)

    async def run(name: str) -> list[Any]:
        cells = [part for part in chapters[name] if isinstance(part, Cell)]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part.source) for part in cells])
        quiet = ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=40"]
        where = {"metadata": {"path": str(book.root)}}
        client = nbclient.NotebookClient(notebook, kernel_name="python3", resources=where, extra_arguments=quiet)
        client.kernel_manager_class = kernels.Kernel
        said = build / f"{name.replace('/', '-')}.log"  # what a kernel itself says, for one that dies
        async with limit:
            try:
                with said.open("w") as log:
                    if cells:
                        await client.async_execute(env=environment, stderr=log)
            except nbclient.exceptions.CellExecutionError as error:
                failed = [any(o.output_type == "error" for o in c.outputs) for c in notebook.cells].index(True)
                traceback = re.sub(r"\x1b\[[\d;]*m", "", error.traceback).rstrip()
                inside = re.search(r"Cell In ?\[\d+\], line (\d+)", traceback)
                line = cells[failed].line + (int(inside[1]) - 1 if inside else 0)
                raise BookError(f"{traceback}\n{name}:{line}: the cell failed: {error.ename}", 1) from error
            except RuntimeError as error:  # nbclient's, where a kernel does not start or dies
                raise BookError("\n".join(filter(None, [said.read_text().strip(), f"{name}: {error}"])), 1) from error
        return [c.outputs for c in notebook.cells]

    # A failing chapter doesn't stop the others: their kernels end in order, and all failures are told.
    done = await asyncio.gather(*map(run, chapters), return_exceptions=True)
    if failures := [result for result in done if isinstance(result, BaseException)]:
        if all(isinstance(failure, BookError) for failure in failures):
            raise BookError("\n".join(map(str, failures)), 1) from failures[0]
        raise next(failure for failure in failures if not isinstance(failure, BookError))
    return [result for result in done if isinstance(result, list)]


def fenced(kind: str, text: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence} {{{kind}}}\n{text.rstrip()}\n{fence}"


def chapter_markdown(book: Book, build: Path, name: str, parts: list[str | Cell], results: list[Any]) -> str:
    """The chapter with its cells' outputs in their place, for the filter; pictures go below `build`."""
    page = Path(name).with_suffix(".html")
    folder = build / "book" / page.parent / f"{page.stem}_files"
    outputs = iter(results)

    def displayed(part: Cell, data: dict[str, str]) -> str:
        """A chart is HTML on the page and an image in the PDF; all else is the same in both."""
        if "text/markdown" in data:
            return data["text/markdown"]
        mime = next((mime for mime in ("image/svg+xml", "image/png") if mime in data), None)
        if mime:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{len(list(folder.iterdir())) + 1}.{mime[6:9]}"
            path.write_bytes(base64.b64decode(data[mime]) if mime == "image/png" else data[mime].encode())
            if "text/html" in data:
                chart = f'#chart("/{path.relative_to(build).as_posix()}")'
                return f"{fenced('=html', data['text/html'])}\n\n{fenced('=typst', chart)}"
            return f"![]({folder.name}/{path.name})"
        if "text/html" in data:
            raise BookError(f"{name}:{part.line}: an output is only HTML; the PDF needs Markdown or an image")
        return fenced(".output", data["text/plain"])

    def value(part: Cell, output: list[Any]) -> str:
        """An inline expression as Quarto puts it: Markdown as it is, a string's repr escaped, else its repr."""
        data: dict[str, str] = next((o.data for o in output if o.output_type == "execute_result"), {})
        text = data.get("text/markdown", data.get("text/plain"))
        if text is None:
            raise BookError(f"{name}:{part.line}: the inline expression {part.source} has no value")
        if "text/markdown" not in data and text[0] in "'\"":
            return re.sub(r"([\\`*_{}\[\]()>#+,\-.!])", r"\\\1", text[1:-1])
        return text

    def block(part: Cell, output: list[Any]) -> str:
        shown = []
        if part.options.get("echo", book.echo):
            shown.append(fenced(".python", re.sub(r"(?m)^#\|.*\n", "", part.source)))
        for item in output:
            if item.output_type != "stream":
                shown.append(displayed(part, item.data))
            elif item.name == "stdout":
                shown.append(fenced(".output", item.text))
            else:
                print(f"{name}:{part.line}: {item.text.rstrip()}", file=sys.stderr)
        if caption := part.options.get("fig-cap", part.options.get("tbl-cap")):
            shown = [f"::: {{#{part.options['label']}}}", *shown, caption, ":::"]
        return "\n" + "\n\n".join(shown) + "\n\n"

    text = [p if isinstance(p, str) else (value if p.inline else block)(p, next(outputs)) for p in parts]
    return f'::: {{file="{name}" page="{page.as_posix()}"}}\n{"".join(text)}\n:::\n\n'


def pandoc(what: str, text: str, *arguments: str) -> str:
    """Pandoc with the filter. A warning is an error too: it means that the page is not what the source says."""
    done = surroundings.run_pandoc([f"--lua-filter={HERE / 'filter.lua'}", *arguments], text)
    if done.returncode or done.stderr:
        raise BookError(f"{what}: pandoc: {done.stderr.strip()}")
    return done.stdout


def write_page(book: Book, build: Path, document: dict[str, Any], chapters: list[dict[str, Any]], place: int) -> None:
    chapter, div = chapters[place], document["blocks"][place]
    root = "../" * chapter["page"].count("/")
    source = json.dumps(document | {"blocks": div["c"][1]})
    variables = {"book": book.title, "author": book.author, "lang": book.lang, "page": chapter["page"], "root": root}
    variables |= {"pagetitle": f"{chapter['title']} – {book.title}", "pdf": root + book.pdf_name}
    variables |= {"chapters": [c | {"current": c is chapter} for c in chapters], "vega": "vegaEmbed" in source}
    variables |= {"previous": chapters[place - 1 : place], "next": chapters[place + 1 : place + 2]}
    metadata = build / f"{place}.json"
    metadata.write_text(json.dumps(variables), encoding="utf-8")
    options = ["--mathml", "--citeproc", "--toc", "--toc-depth=3", f"--template={HERE / 'page.html'}"]
    page = pandoc(chapter["file"], source, "--from=json", "--to=html5", *options, f"--metadata-file={metadata}")
    target = build / "book" / chapter["page"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")


def write_pdf(book: Book, build: Path, document: dict[str, Any]) -> None:
    blocks = [block for chapter in document["blocks"] for block in chapter["c"][1]]
    named = {"title": book.title, "author": book.author, "lang": book.lang[:2], "reference-section-title": "References"}
    metadata = [f"--metadata={key}={value}" for key, value in named.items()]
    options = ["--from=json", "--to=typst", "--citeproc", f"--template={HERE / 'book.typ'}", WIDTHS, *metadata]
    source = build / "book.typ"
    source.write_text(pandoc("the PDF", json.dumps(document | {"blocks": blocks}), *options), encoding="utf-8")
    try:
        typst.compile(source, output=build / "book" / book.pdf_name, root=build, ignore_system_fonts=True)
    except typst.TypstError as error:
        raise BookError(f"the PDF: typst: {error.diagnostic}") from error


def check_structure(book: Book, blocks: list[dict[str, Any]], contents: list[dict[str, Any]]) -> None:
    """Raise BookError unless the document has each chapter once, in order, under one heading: pages go by that."""
    files = [dict(block["c"][0][2]).get("file") if block["t"] == "Div" else None for block in blocks]
    for place, name in enumerate(book.chapters):
        if files[place : place + 1] != [name]:
            before = book.chapters[max(0, place - 1)]
            raise BookError(f"{before}: something is opened and not closed, such as an HTML tag")
        titles = sum(chapter["file"] == name for chapter in contents)
        if titles != 1:
            raise BookError(f"{name}:1: a chapter needs one heading of level 1, this one has {titles}")
    if len(files) != len(book.chapters):
        raise BookError(f"{book.chapters[-1]}: something is closed that was not opened, such as an HTML tag")


def expected(book: Book, formats: list[str]) -> list[str]:
    """The files that a rendering will write, as far as they are known before."""
    pages = [str(Path(name).with_suffix(".html")) for name in book.chapters] if "html" in formats else []
    return [*pages, *([book.pdf_name] if "pdf" in formats else [])]


def render(book: Book, formats: list[str]) -> None:
    """Render in a temporary folder; what was made is put into the output at the end. Raises BookError;
    for an output that can't take it, before the work."""
    output.check(book.output, expected(book, formats))
    texts = {name: sources.read(book.root, name) for name in book.chapters}
    chapters = {name: parse(name, source) for name, source in texts.items()}
    with tempfile.TemporaryDirectory(prefix="book-", ignore_cleanup_errors=True) as folder:
        build = Path(folder)
        for made in ("book", "home"):
            (build / made).mkdir()
        results = zip(chapters.items(), kernels.run(execute(book, build, chapters)), strict=True)
        markdown = "".join(chapter_markdown(book, build, *chapter, outputs) for chapter, outputs in results)
        bibliography = [f"--metadata=bibliography={book.root / book.bibliography}"] if book.bibliography else []
        reading = ["--from=markdown-yaml_metadata_block", "--to=json", *bibliography]
        document = json.loads(pandoc("the book", markdown, *reading))
        contents = json.loads(document["meta"].pop("book")["c"])
        for problem in contents["problems"]:
            lines = texts[problem["file"]].splitlines()
            line = next((f":{i}" for i, text in enumerate(lines, 1) if problem["needle"] in text), "")
            raise BookError(f"{problem['file']}{line}: {problem['message']}")
        check_structure(book, document["blocks"], contents["chapters"])
        site = build / "book" / "site_libs"
        (site / "vega").mkdir(parents=True)
        with ThreadPoolExecutor(PARALLEL) as pool:
            jobs = [pool.submit(write_pdf, book, build, document)] if "pdf" in formats else []
            for place in range(len(chapters) if "html" in formats else 0):
                jobs.append(pool.submit(write_page, book, build, document, contents["chapters"], place))
            bundle = f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();"
            (site / "vega" / "vega.js").write_text(bundle, encoding="utf-8")
            shutil.copy(HERE / "style.css", site)
            for job in jobs:
                job.result()
        output.put(build / "book", book.output, formats, book.pdf_name)
