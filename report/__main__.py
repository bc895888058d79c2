"""Render the book: `python -m report`, with Quarto where it is installed and with the embedded engine elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.cli import Parser, exit_status, path
from experiments.store import parquet
from report import output, surroundings, yours
from report.engine import Book, expected, render
from report.sources import BookError

UNTOUCHED = "the book is as it was"
QUARTO = (1, 10)  # the first version that renders a book to html and typst


def quarto_version() -> tuple[int, ...]:
    """The version of the quarto on PATH; empty where there is none."""
    if not shutil.which("quarto"):
        return ()
    answer = subprocess.run(["quarto", "--version"], capture_output=True, text=True).stdout
    return tuple(int(part) for part in re.findall(r"\d+", answer)[:3])


def run_quarto(book: Book, formats: list[str]) -> int:
    """Quarto's rendering, in a folder of its own, as Quarto empties its output; the exit status."""
    output.check(book.output, expected(book, formats))
    with tempfile.TemporaryDirectory(prefix=".book-", suffix=".tmp", dir=book.root) as folder:
        command = ["quarto", "render", str(book.root), "--output-dir", f"{folder}/book"]
        if len(set(formats)) == 1:
            command += ["--to", {"html": "html", "pdf": "typst"}[formats[0]]]
        version = f"Quarto {'.'.join(map(str, quarto_version()))}"
        own = {"QUARTO_PYTHON": sys.executable, "PYTHONPATH": str(book.root), "DLPERF_ENGINE": version}
        status = subprocess.run(command, env=surroundings.for_quarto() | own).returncode
        if status == 0:
            output.put(Path(folder) / "book", book.output, formats, book.pdf_name)
        return status


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("report", __doc__)
    parser.add_argument("--engine", choices=["auto", "quarto", "embedded"], default="auto")
    parser.add_argument("--to", default="html,pdf", help="html, pdf or both (default: %(default)s)")
    parser.add_argument("--output-dir", type=path, help="where to write (default: _quarto.yml's output-dir)")
    options = parser.parse_args(arguments)
    formats = options.to.split(",")
    if unknown := set(formats) - {"html", "pdf"}:
        parser.error(f"--to takes html, pdf or html,pdf, not {', '.join(sorted(unknown))}")

    version = quarto_version() if options.engine != "embedded" else ()
    if version < QUARTO and (version or options.engine == "quarto"):
        found = f"version {'.'.join(map(str, version))} is" if version else "none is"
        remedy = "use --engine embedded" if options.engine == "quarto" else "the embedded engine renders instead"
        print(f"Quarto 1.10 or newer is needed, but {found} on PATH; {remedy}", file=sys.stderr)
        if options.engine == "quarto":
            return 2
    start = time.perf_counter()

    def work() -> int:
        named = yours.folders(Path.cwd())
        if named:  # the chapters run in the project's root
            os.environ[yours.FOLDERS] = os.pathsep.join(str(folder.resolve()) for folder in named)
            for file in (file for folder in named for file in parquet.files(folder)):
                parquet.read_run(file)  # a damaged one is told before minutes of rendering
        try:
            book = Book.read(Path(__file__).resolve().parents[1], options.output_dir)
            if version >= QUARTO:
                if code := run_quarto(book, formats):
                    return code
            else:
                render(book, formats)
        except BookError as error:
            print(error, file=sys.stderr)
            return error.code
        for name, file in (("html", book.output / "index.html"), ("pdf", book.output / book.pdf_name)):
            if name in formats:
                print(f"{name.upper():5}{file}")
        print(f"{time.perf_counter() - start:.1f} s with {'quarto' if version >= QUARTO else 'the embedded engine'}")
        return 0

    return exit_status("report", work, UNTOUCHED, UNTOUCHED)


if __name__ == "__main__":
    sys.exit(main())
