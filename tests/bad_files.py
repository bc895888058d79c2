"""Files and folders that can't be used, a line a case: what is wrong, the command that reads it, and what it says.

A case's function makes the file or folder in `{here}`, given a whole one of its kind.
"""

from __future__ import annotations

import functools
import gzip
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from experiments.store import parquet
from report.output import LIST
from tests.cifar10_files import flipped, packed, put
from tests.stored_run import counts, origin


class Bad(NamedTuple):
    """A file or folder that can't be used."""

    what: str
    module: str
    words: str
    make: Callable[[Path], object]
    line: str


# ---- results --------------------------------------------------------------------------------------------------------


@functools.cache
def _whole() -> tuple[str, bytes]:
    """Name and content of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        path = parquet.write(counts(*range(50)), origin(), results=Path(folder))
        return path.name, path.read_bytes()


def stored(here: Path) -> Path:
    """The whole run, in a folder of results."""
    name, content = _whole()
    return put(here / "results" / "p3_crosscheck", {name: content}) / name


def results(harm: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def make(here: Path) -> None:
        path = stored(here)
        path.write_bytes(harm(path.read_bytes()))

    return make


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Callable[[bytes], bytes]:
    """The file with another table, and without digests, as files of old have none."""

    def harm(content: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(content))
        kept = {parquet.METADATA_KEY: table.schema.metadata[parquet.METADATA_KEY]}
        out = io.BytesIO()
        pq.write_table(change(table.replace_schema_metadata(kept)), out)
        return out.getvalue()

    return harm


def _in_rows(content: bytes) -> bytes:
    """A bit of the first column's data."""
    return flipped(content, 60)


def _elsewhere(here: Path) -> None:
    path = stored(here)
    (here / "results" / "p9_unknown").mkdir()
    path.rename(here / "results" / "p9_unknown" / path.name)


REPORT = "report.__main__"
RENAMED = "results/p3_crosscheck/x.parquet"
RESULTS = [
    Bad("a torn file", REPORT, "", results(lambda c: c[: len(c) // 2]), "cannot be read"),
    Bad("an empty file", REPORT, "", results(lambda c: b""), "cannot be read"),
    Bad("another kind of file", REPORT, "", results(lambda c: b"PAR1 none PAR1"), "cannot be read"),
    Bad("a flipped bit", REPORT, "", results(_in_rows), "remove it or run the experiment again"),
    Bad("a missing column", REPORT, "", results(rewritten(lambda t: t.drop_columns(["value"]))), "break the schema"),
    Bad("no rows", REPORT, "", results(rewritten(lambda t: t.slice(0, 0))), "has no rows"),
    Bad("rows twice", REPORT, "", results(rewritten(lambda t: pa.concat_tables([t, t]))), "the row is there twice"),
    Bad("no provenance", REPORT, "", results(rewritten(lambda t: t.replace_schema_metadata(None))), "no provenance"),
    Bad("a renamed file", REPORT, "", lambda here: stored(here).rename(here / RENAMED), "names another run"),
    Bad("an unknown experiment", REPORT, "", _elsewhere, "no schema for experiment 'p9_unknown'"),
    Bad("an empty folder", REPORT, "", lambda here: (here / "results").mkdir(), "has no results"),
    Bad("no folder", REPORT, "", lambda here: None, "is no folder"),
    Bad("a file as the folder", REPORT, "", lambda here: (here / "results").write_text("x"), "is no folder"),
    Bad("a file as the folder", "experiments.p3_crosscheck", "", lambda here: (here / "results").touch(), "earlier"),
    Bad("a damaged go", "experiments.measure", "", lambda here: put(here / "results", {"measure.json": b"{"}),
        "measure.json is damaged; remove it to start anew"),
]  # fmt: skip

# ---- archives -------------------------------------------------------------------------------------------------------

CIFAR, FASHION = ("tools.get_cifar10", "--data-dir {here}"), ("tools.get_fashion_mnist", "--data-dir {here}")
PACKED = packed("cifar-10-batches-bin", {"data_batch_1.bin": b"x" * 100})
BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
MOSAICS = [*(f"cifar10_train_{k}.webp" for k in range(1, 6)), "cifar10_test.webp"]
IDX = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]


def each(names: list[str], content: bytes) -> Callable[[Path], object]:
    return lambda here: put(here, dict.fromkeys(names, content))


ARCHIVES = [
    Bad("an empty folder", *CIFAR, lambda here: None, "no CIFAR-10 data in"),
    Bad("a torn archive", *CIFAR, lambda here: put(here, {"cifar-10-binary.tar.gz": PACKED[:60]}), "damaged archive"),
    Bad("a page", *CIFAR, lambda here: put(here, {"cifar-10-python.tar.gz": b"<html>"}), "damaged archive"),
    Bad("few files", *CIFAR, lambda here: put(here, {"cifar-10-binary.tar.gz": PACKED}), "an archive without"),
    Bad("short batches", *CIFAR, each([f"{name}.bin" for name in BATCHES], b"x"), "has 1 bytes, expected 30730000"),
    Bad("any pickle", *CIFAR, each(BATCHES, b"cos\nsystem\n(S'true'\ntR."), "not the official batch, so not read"),
    Bad("no pictures", *CIFAR, each([*MOSAICS, "cifar10_labels.npy"], b"x"), "not a readable array of numbers"),
    Bad("a file as the folder", "tools.get_cifar10", "--data-dir {here}/file", each(["file"], b"x"), "not a folder"),
    Bad("no gzip", *FASHION, each([f"{name}-ubyte.gz" for name in IDX], b"x"), "damaged"),
    Bad("no idx", *FASHION, each([f"{name}-ubyte.gz" for name in IDX], gzip.compress(b"x")), "not the idx file"),
    Bad("one file", *FASHION, each([f"{IDX[0]}-ubyte.gz"], b"x"), "missing"),
]  # fmt: skip

# ---- checkpoints: of the command in bad_flags.GIVEN after its first epoch, which the test puts there -----------------


def checkpoint(harm: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def make(here: Path) -> None:
        (path,) = (here / "checkpoints").iterdir()
        path.write_bytes(harm(path.read_bytes()))

    return make


def _of_another(content: bytes) -> bytes:
    """The checkpoint of a run with another seed."""
    saved = torch.load(io.BytesIO(content), weights_only=True)
    out = io.BytesIO()
    torch.save(saved | {"config": saved["config"] | {"seed": 7}}, out)
    return out.getvalue()


RESUME = ("experiments.p4_cutout", "--M 2 --resume")
CHECKPOINTS = [
    Bad("torn", *RESUME, checkpoint(lambda c: c[: len(c) // 2]), "not a whole checkpoint"),
    Bad("empty", *RESUME, checkpoint(lambda c: b""), "not a whole checkpoint"),
    Bad("another kind of file", *RESUME, checkpoint(lambda c: b"x" * 1000), "remove it to start afresh"),
    Bad("a flipped bit", *RESUME, checkpoint(lambda c: flipped(c, len(c) // 2)), "not a whole checkpoint"),
    Bad("of another run", *RESUME, checkpoint(_of_another), "belongs to another configuration (seed=7)"),
]

# ---- the book -------------------------------------------------------------------------------------------------------

CONFIG = """project: {type: book, output-dir: _book}
book: {title: T, author: A, chapters: [index.qmd]}
"""


def book(config: str = CONFIG, chapter: str = "# T\n") -> Callable[[Path], object]:
    """A book of one chapter, rendered before."""

    def make(here: Path) -> None:
        put(here, {"_quarto.yml": config.encode(), "index.qmd": chapter.encode()})
        put(here / "_book", {"index.html": b"earlier", LIST: b'{"html": ["index.html"]}'})

    return make


def cell(*lines: str) -> Callable[[Path], object]:
    return book(chapter="\n".join(["# T", "", "```{python}", *lines, "```", ""]))


def _latin(name: str) -> Callable[[Path], object]:
    return lambda here: (book()(here), (here / name).write_bytes("# Größe\n".encode("latin-1")))


BOOK = (REPORT, "")
BOOKS = [
    Bad("no YAML", *BOOK, book("a: ["), "_quarto.yml: no readable book"),
    Bad("no book", *BOOK, book("project: {}"), "_quarto.yml: no readable book: KeyError('book')"),
    Bad("a list as title", *BOOK, book(CONFIG.replace("title: T", "title: [T]")), "title must be text, not ['T']"),
    Bad("a number as author", *BOOK, book(CONFIG.replace("author: A", "author: 3")), "book.author must be a name"),
    Bad("a chapter that is none", *BOOK, book(CONFIG.replace("index.qmd", "a.qmd")), "a.qmd is not a file of the book"),
    Bad("a part", *BOOK, book(CONFIG.replace("index.qmd", "{part: x}")), "is not a file of the book"),
    Bad("echo", *BOOK, book(f"{CONFIG}execute: {{echo: often}}"), "echo must be true or false, not 'often'"),
    Bad("a configuration in Latin-1", *BOOK, _latin("_quarto.yml"), "_quarto.yml:1: not UTF-8 (byte 0xf6)"),
    Bad("a chapter in Latin-1", *BOOK, _latin("index.qmd"), "index.qmd:1: not UTF-8 (byte 0xf6)"),
    Bad("two titles", *BOOK, book(chapter="# T\n\n# U\n"), "index.qmd:3: a second heading of level 1"),
    Bad("no title", *BOOK, book(chapter="T\n"), "index.qmd:1: a chapter needs one heading of level 1"),
    Bad("an option", *BOOK, cell("#| fig-width: 3", "1"), "index.qmd:4: unknown cell option #| fig-width: 3"),
    Bad("a caption missing", *BOOK, cell("#| label: fig-a", "1"), "index.qmd:4: fig-cap and a label that starts"),
    Bad("a cell left open", *BOOK, book(chapter="# T\n\n```{python}\n1\n"), "index.qmd:3: the block is not closed"),
    Bad("another language", *BOOK, book(chapter="# T\n\n```{r}\n1\n```\n"), "index.qmd:3: unknown code block {r}"),
    Bad("a block", *BOOK, book(chapter="# T\n\n::: {.panel-tabset}\n:::\n"), "index.qmd:3: unknown block"),
    Bad("a shortcode", *BOOK, book(chapter="# T\n\n{{< video a >}}\n"), "index.qmd:3: the embedded engine knows"),
    Bad("front matter", *BOOK, book(chapter="---\ntitle: T\n---\n"), "index.qmd:1: the embedded engine knows"),
    Bad("a reference", *BOOK, book(chapter="# T\n\nSee @fig-a.\n"), "index.qmd:3: @fig-a has no such label"),
    Bad("a foreign picture", *BOOK, book(chapter="# T\n\n![x](https://a.b/c.png)\n"), "index.qmd:3: images must be"),
]
FILES = [*RESULTS, *ARCHIVES, *CHECKPOINTS, *BOOKS]
