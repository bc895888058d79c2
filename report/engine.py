"""The embedded engine: renders the book's chapters where Quarto can't be installed, from Python wheels alone.

nbclient executes the chapters' cells, pandoc with citeproc and Lua filters writes HTML and Typst, typst the PDF.
It knows the Quarto features that the chapters use and stops at any other, naming file and line.
"""

import base64
import dataclasses
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import typst
import yaml

from experiments.store.files import temporary_folder
from report import output, sources, surroundings, vega
from report.chapter import Cell, parse
from report.execution import PARALLEL, execute
from report.sources import BookError

HERE = Path(__file__).resolve().parent
# Of the whole book; of what an output's format needs; of a table's columns in the PDF.
NUMBERING, FORMATS, WIDTHS = (f"--lua-filter={HERE / name}.lua" for name in ("numbering", "formats", "widths"))


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
            config = yaml.safe_load(sources.read(root, source.name))
            folder = output or root / config["project"].get("output-dir", "_book")
            title, author = config["book"]["title"], sources.authors(config["book"]["author"])
            lang = config.get("lang", "en")
            chapters, bibliography = list(config["book"]["chapters"]), config.get("bibliography")
            echo = config.get("execute", {}).get("echo", True)
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise BookError(f"{source}: no readable book: {' '.join(repr(error).split())}") from error
        for what, value, kind in (
            ("title", title, str),
            ("lang", lang, str),
            ("echo", echo, bool),
        ):
            if not isinstance(value, kind):
                raise BookError(f"{source}: {what} must be {'text' if kind is str else 'true or false'}, not {value!r}")
        for name in [*chapters, *([bibliography] if bibliography else [])]:
            if not isinstance(name, str) or not (root / name).is_file():
                raise BookError(f"{source}: {name} is not a file of the book")
        return cls(root, folder.resolve(), title, author, lang, chapters, bibliography, echo)

    @property
    def pdf_name(self) -> str:
        """The file name that Quarto gives the PDF of a book."""
        return re.sub(r"[ <>()|:&;#?*'\\/]", "-", self.title) + ".pdf"


def fenced(kind: str, text: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence} {{{kind}}}\n{text.rstrip()}\n{fence}"


RAW = re.compile(r"^(`{3,}) ?\{=html\}\n(.*?)\n\1$", re.MULTILINE | re.DOTALL)


def set_aside(markdown: str, pieces: list[str]) -> str:
    """The Markdown with a mark for each piece of HTML, which pandoc would only carry; `put_back` undoes it."""

    def mark(match: re.Match[str]) -> str:
        pieces.append(match[2])
        return f"``` {{=html}}\n<!--piece {len(pieces) - 1}-->\n```"

    return RAW.sub(mark, markdown)


def put_back(page: str, pieces: list[str]) -> str:
    return re.sub(r"<!--piece (\d+)-->", lambda match: pieces[int(match[1])], page)


def chapter_markdown(book: Book, build: Path, name: str, parts: list[str | Cell], results: list[Any]) -> str:
    """The chapter with its cells' outputs in their place, for the filter; pictures go below `build`."""
    page = Path(name).with_suffix(".html")
    folder = build / "book" / page.parent / f"{page.stem}_files"
    outputs = iter(results)

    def displayed(part: Cell, data: dict[str, str], alt: str) -> str:
        """A chart is HTML on the page and an image in the PDF; all else is the same in both."""
        if "text/markdown" in data:
            return data["text/markdown"]
        mime = next((mime for mime in ("image/svg+xml", "image/png") if mime in data), None)
        if mime:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{len(list(folder.iterdir())) + 1}.{mime[6:9]}"
            path.write_bytes(base64.b64decode(data[mime]) if mime == "image/png" else data[mime].encode())
            source = f"{folder.name}/{path.name}"
            if "text/html" in data:
                still = vega.without_script(source, alt) if "<script" in data["text/html"] else ""
                chart = f'#chart("/{path.relative_to(build).as_posix()}", {json.dumps(alt, ensure_ascii=False)})'
                return f"{fenced('=html', data['text/html'] + still)}\n\n{fenced('=typst', chart)}"
            return f"![]({source})"
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
                shown.append(displayed(part, item.data, item.metadata.get("alt", "")))
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
    """Pandoc with a filter. A warning is an error too: it means that the page is not what the source says."""
    done = surroundings.run_pandoc(list(arguments), text)
    if done.returncode or done.stderr:
        ended = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        raise BookError(f"{what}: pandoc: {done.stderr.strip() or ended}")
    return done.stdout


def write_page(
    book: Book, build: Path, document: dict[str, Any], chapters: list[dict[str, Any]], pieces: list[str], place: int
) -> None:
    chapter, div = chapters[place], document["blocks"][place]
    root = "../" * chapter["page"].count("/")
    source = json.dumps(document | {"blocks": div["c"][1]})
    variables = {"book": book.title, "author": book.author, "lang": book.lang, "page": chapter["page"], "root": root}
    variables |= {"pagetitle": f"{chapter['title']} – {book.title}", "pdf": root + book.pdf_name}
    variables |= {
        "chapters": [c | {"current": c is chapter} for c in chapters],
        "vega": "vegaEmbed" in put_back(source, pieces),
    }
    variables |= {"previous": chapters[place - 1 : place], "next": chapters[place + 1 : place + 2]}
    metadata = build / f"{place}.json"
    metadata.write_text(json.dumps(variables), encoding="utf-8")
    options = [FORMATS, "--mathml", "--citeproc", "--toc", "--toc-depth=3", f"--template={HERE / 'page.html'}"]
    options.append(f"--include-after-body={HERE / 'scroll.html'}")
    page = pandoc(chapter["file"], source, "--from=json", "--to=html5", *options, f"--metadata-file={metadata}")
    target = build / "book" / chapter["page"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(put_back(page, pieces), encoding="utf-8")


def write_pdf(book: Book, build: Path, document: dict[str, Any]) -> None:
    blocks = [block for chapter in document["blocks"] for block in chapter["c"][1]]
    named = {"title": book.title, "author": book.author, "lang": book.lang[:2], "reference-section-title": "References"}
    metadata = [f"--metadata={key}={value}" for key, value in named.items()]
    options = [FORMATS, "--from=json", "--to=typst", "--citeproc", f"--template={HERE / 'book.typ'}", WIDTHS, *metadata]
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
    with temporary_folder("book") as build:
        for made in ("book", "home"):
            (build / made).mkdir()
        outputs = execute(book.root, build, chapters)
        markdown = "".join(chapter_markdown(book, build, name, chapters[name], outputs[name]) for name in chapters)
        pieces: list[str] = []
        markdown = set_aside(markdown, pieces)
        bibliography = [f"--metadata=bibliography={book.root / book.bibliography}"] if book.bibliography else []
        reading = [NUMBERING, "--from=markdown-yaml_metadata_block", "--to=json", *bibliography]
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
                jobs.append(pool.submit(write_page, book, build, document, contents["chapters"], pieces, place))
            (site / "vega" / "vega.js").write_text(vega.bundle(), encoding="utf-8")
            for name in ("book.css", "style.css"):
                shutil.copy(HERE / name, site)
            for job in jobs:
                job.result()
        output.put(build / "book", book.output, formats, book.pdf_name)
