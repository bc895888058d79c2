"""Bad input, a line a case: what is called, what is wrong with it, and what the one line says of that.

`FLAGS` are command lines; `{here}` is an empty folder. `FILES` are command lines that read a file or folder which the
case's function has made there, given a whole one of its kind.
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
from tests.p4_runs import SMALL
from tests.stored_run import counts, origin

IMAGES = len(SMALL.train_images)

# What comes before a case's own words.
GIVEN = {
    "experiments.allreduce": "--backend gloo --learners 2 --min-bytes 1024 --max-bytes 1024 --results {here}/results",
    "experiments.measure": "--results {here}/results",
    "experiments.p1_horovod": "--results {here}/results",
    "experiments.p2_input": "--network tiny --data synthetic --steps 3 --windows 2",
    "experiments.p2_strategy": "--results {here}/results",
    "experiments.p3_crosscheck": "--results {here}/results",
    "experiments.p4_cutout": "--data synthetic --depth 14 --batch-size 16 --device cpu --epochs 4 "
    "--results {here}/results --checkpoints {here}/checkpoints",
    "experiments.p4_images": "--data synthetic --results {here}/results",
    "experiments.p4_kernels": "--data synthetic",
    "experiments.p4_split": "--data synthetic --device cpu --batch-size 16 --results {here}/results",
    "experiments.p4_throughput": "--data synthetic --device cpu --batch-size 16",
    "experiments.scaling_ahead": "--results {here}/results",
    "experiments.scaling_fit": "--draws 100 --results {here}/results",
    "report.__main__": "--engine embedded --to html",
}

FLAGS = {
    "experiments.allreduce": [
        ("--learners 1", "--learners must be 2 to 256, not 1: one has nobody to sum with"),
        ("--learners 257", "--learners must be 2 to 256, not 257"),
        ("--min-bytes 6", "--min-bytes must be a power of two of at least 4 (a float32), not 6"),
        ("--max-bytes 2", "--max-bytes must be a power of two of at least 4 (a float32), not 2"),
        ("--min-bytes 4096", "--min-bytes 4096 is more than --max-bytes 1024"),
        ("--windows 0", "--windows must be at least 1, not 0"),
        ("--threads 0", "--threads must be at least 1, not 0"),
        ("--repeat 0", "--repeat must be at least 1, not 0"),
        ("--window-seconds nan", "--window-seconds must be positive and finite, not nan"),
        (f"--max-bytes {1 << 60}", f"--max-bytes {1 << 60}: 2 learners have room for vectors of"),
        ("--gbit -1", "--gbit must be positive and finite, not -1"),
        ("--backend mpi", "argument --backend: invalid choice: 'mpi'"),
    ],
    "experiments.measure": [
        ("--budget 1s", "--budget 1 s is too little: the first answer takes about"),
        ("--repeats 0", "--repeats must be at least 1, not 0"),
        ("--device tpu", "argument --device: invalid choice: 'tpu'"),
        ("--budget soon", "argument --budget: 'soon' is no time such as 90s, 30m or 2h"),
        ("--problems 3", "argument --problems: '3' is none of 1, 2, 4"),
        ("--results /proc/nowhere", "/proc/nowhere"),
    ],
    "experiments.p1_horovod": [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--learners -2", "--learners must be at least 1, not -2"),
        ("--learners 1,0", "--learners must be at least 1, not 0"),
        ("--learners 1,two", "argument --learners: 'two' is no whole number"),
        ("--learners 1,", "argument --learners: '' is no whole number"),
        ("--learners 2,4,2", "argument --learners: 2 is named twice"),
        ("--learners 100000", "100000 learners of 1 threads need 100000 cores"),
        ("--device gpu", "this machine has no NVIDIA GPU"),
        ("--batch-size 0", "--batch-size must be at least 1, not 0"),
        ("--image-size 16", "--image-size must be at least 32"),
        ("--warm-up -1", "--warm-up must not be negative"),
        ("--seed -1", "--seed must be 0 to"),
        ("--gbit 1", "give --hosts 2 with it"),
        ("--hosts 2", "--hosts 2 is more than the 1 learners"),
        ("--learners 2 --hosts 2 --gbit nan", "--gbit must be positive"),
        ("--learners 2 --hosts 2 -H a:2", "give one of them"),
        ("--learners 2 --hosts 2 --launcher mpirun", "--hosts goes with --launcher none"),
        ("--learners 4 -H a:1,b:2", "4 learners need as many slots, a:1,b:2 has 3"),
        ("-H a", "'a' is not a host and its slots"),
        ("-H ''", "'' is not a host and its slots"),
        ("-H no-such-host.invalid:1", "unknown host no-such-host.invalid"),
        ("--sweep --hosts 32", "--sweep has no size with 32 hosts"),
        ("--sweep --learners 2", "leave out --learners, or --sweep"),
        ("--repeats 0", "--repeats must be at least 1, not 0"),
        ("--repeat 0", "--repeat must be at least 1, not 0"),
        ("--independent-too --no-allreduce", "leave out --no-allreduce"),
        ("--stall-timeout 0", "--stall-timeout must be positive and finite, not 0"),
        ("--stall-timeout nan", "--stall-timeout must be positive and finite, not nan"),
    ],
    "experiments.p2_input": [
        ("--windows 0", "--windows must be at least 1, not 0"),
        ("--per-learner-batch 3000", "--per-learner-batch is more than the 2,000 images"),
    ],
    "experiments.p2_strategy": [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--learners 1,0", "--learners must be at least 1, not 0"),
        ("--learners 1,x", "argument --learners: 'x' is no whole number"),
        ("--learners 2,", "argument --learners: '' is no whole number"),
        ("--learners 2,1,2", "argument --learners: 2 is named twice"),
        ("--workers 0", "--workers must be at least 1, not 0"),
        ("--base -1", "--base must be at least 1, not -1"),
        ("--seed -1", "--seed must be 0 to"),
        ("--scaling weak,string", "argument --scaling: 'string' is none of weak, strong"),
        ("--scaling strong --learners 3", "--effective-batch 256 can't be divided by 3 learners"),
        ("--scaling strong --learners 1,3", "--effective-batch 256 can't be divided by 3 learners"),
        ("--learners 4 --workers 3", "4 learners can't be shared out evenly to 3 workers"),
        ("--strategy mirrored --learners 2 --workers 2", "--strategy mirrored has one worker"),
        ("--strategy mirrored,multiworker --workers 2", "--strategy mirrored has one worker"),
        ("--strategy mirrored,mirrored", "argument --strategy: mirrored is named twice"),
        ("--strategy mirrored --communication ring", "--communication is of --strategy multiworker"),
        ("--communication hierarchical", "argument --communication: 'hierarchical' is none of auto, nccl, ring"),
        ("--all-reduce nccl", "--all-reduce is of --strategy mirrored"),
        ("--all-reduce nccl,ring", "'ring' is none of default, nccl, hierarchical, one-device"),
        ("--gbit 1", "give --hosts 2 with it"),
        ("--learners 2 --hosts 2 --gbit 0", "--gbit must be positive"),
        ("--hosts 2", "--hosts 2 is more than the 1 workers"),
        ("--steps-per-epoch 938", "--steps-per-epoch must be 1 to 937 with 60,000 images and batches of 64"),
        ("--steps-per-epoch 0", "--steps-per-epoch must be 1 to 937"),
        ("--data synthetic --base 2001", "--steps-per-epoch must be 1 to 0 with 2,000 images"),
        ("--steps-per-epoch 3 --steps-per-execution 2", "--steps-per-epoch 3 is no multiple of --steps-per-execution"),
        ("--learning-rate 0", "--learning-rate must be positive and finite, not 0"),
        ("--learning-rate nan", "--learning-rate must be positive and finite, not nan"),
        ("--join-timeout 0", "--join-timeout must be positive and finite, not 0"),
        ("--image-size 31", "--image-size must be at least 32, ResNet-50's least, not 31"),
        ("--image-size big", "argument --image-size: invalid int value: 'big'"),
        ("--repeats 0", "--repeats must be at least 1, not 0"),
        ("--sweep --learners 2", "--sweep chooses the numbers of learners itself"),
        ("--sweep --workers 3", "--sweep: none of 1, 2, 4, 8, 16 learners suits 3 workers on 1 hosts"),
        ("--learners 100000 --base 1 --steps-per-epoch 1 --scaling weak", "must be 1 to 0"),
        ("--learners 2000 --base 1", "2000 learners of 1 threads need 2000 cores"),
        ("--device gpu", "this machine has no NVIDIA GPU"),
        ("--launcher slurm", "no SLURM_PROCID here"),
        ("--learner 2 --speed 3", "unrecognized arguments: --speed 3"),
        ("", "no Fashion-MNIST data: give --data-dir DIR or set DLPERF_DATA=DIR"),
        ("--data-dir /nowhere", "/nowhere: no Fashion-MNIST files there"),
    ],
    "experiments.p3_crosscheck": [
        ("--max-layers 0", "--max-layers and --kernels must be at least 1"),
        ("--kernels three", "argument --kernels: invalid int value: 'three'"),
    ],
    "experiments.p4_cutout": [
        ("--M 0", "--M must be at least 1, not 0"),
        (f"--M {2**40}", f"--M times --batch-size must be at most {2**24}, not {2**44}"),
        ("--M many", "argument --M: invalid int value: 'many'"),
        ("--epochs 101", "--epochs 101: the homework allows no run of more than 100 epochs"),
        ("--epochs 0", "--epochs must be at least 1, not 0"),
        ("--batch-size 0", "--batch-size must be at least 1, not 0"),
        ("--batch-size 97", f"--batch-size 97 is more than the {IMAGES} training images"),
        ("--depth 15", "--depth must be 6n+2 with n ≥ 2 (14, 20, … 44, …), not 15"),
        ("--depth 8", "--depth must be 6n+2 with n ≥ 2 (14, 20, … 44, …), not 8"),
        ("--device tpu", "--device must be auto, cpu or cuda, not tpu"),
        ("--device cuda", "--device cuda: PyTorch sees no GPU here; use --device cpu"),
        ("--engine fused", "--engine fused needs a GPU; use --engine plain"),
        ("--minutes 0", "--minutes must be positive and finite, not 0"),
        ("--minutes nan", "--minutes must be positive and finite, not nan"),
        ("--minutes inf", "--minutes must be positive and finite, not inf"),
        (f"--seed {2**63}", f"--seed must be at most {2**63 - 1}, not {2**63}"),
        ("--seed -1", "--seed must be at least 0, not -1"),
    ],
    "experiments.p4_images": [
        ("--images 0 0", "--images needs different numbers from 0 to"),
        ("--images -1", "--images needs different numbers from 0 to"),
        ("--images 1000000", "--images needs different numbers from 0 to"),
        ("--draws 0", "--draws must be at least 1"),
        ("--seed -1", "--seed at least 0"),
        ("--data cifar10 --data-dir {here}/none", "no CIFAR-10 data: {here}/none does not exist"),
    ],
    "experiments.p4_kernels": [
        ("", "PyTorch sees no GPU here, and the times of its kernels are what this measures"),
        ("--steps few", "argument --steps: invalid int value: 'few'"),
    ],
    "experiments.p4_split": [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--repeat 0", "--repeat must be at least 1, not 0"),
        ("--M 3 --learners 2", "--M 3 instances can't be shared out evenly to 2 learners"),
        ("--epochs 101", "--epochs 101: the homework allows no run of more than 100 epochs"),
        ("--learners 1 --batch-norm synchronised", "--batch-norm synchronised needs at least 2 learners"),
        ("--batch-norm synchronised", "--batch-norm synchronised needs GPUs"),
        ("--device cuda", "--device cuda: PyTorch sees no GPU here"),
        ("--data cifar10 --data-dir /nowhere", "no CIFAR-10 data: /nowhere does not exist"),
    ],
    "experiments.p4_throughput": [
        ("--M 1 0", "--M must be at least 1, not 0"),
        ("--M 1 1", "--M needs different numbers"),
        ("--windows 0", "--windows must be at least 1"),
        ("--turns 0", "--turns must be at least 1"),
        ("--seconds 0", "--seconds must be positive and finite"),
        ("--seconds nan", "--seconds must be positive and finite"),
        ("--seconds inf", "--seconds must be positive and finite"),
        ("--workers -1", "--workers must be at least 0"),
        ("--batch-size 97", f"more than the {IMAGES} training images"),
        ("--device tpu", "--device must be auto, cpu or cuda"),
    ],
    "experiments.predict": [
        ("--from nowhere", "--from nowhere: there is no such folder"),
        ("--from {here}", "has no run of one learner; make some: python experiments/measure.py"),
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--learners many", "argument --learners: 'many' is no whole number"),
        ("--price -1", "--price must be positive and finite, not -1"),
        ("--link fast", "argument --link: 'fast' is no speed such as 25gbit or 100gbit"),
        ("--link 0gbit", "argument --link: '0gbit' is no speed"),
    ],
    "experiments.scaling_ahead": [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--learners 8,8", "argument --learners: 8 is named twice"),
    ],
    "experiments.scaling_fit": [
        ("--level 1", "--level must lie between 0 and 1"),
        ("--references {here}/none.csv", "none.csv: cannot be read"),
    ],
    "report.__main__": [
        ("--to docx", "--to takes html, pdf or html,pdf, not docx"),
        ("--engine latex", "argument --engine: invalid choice: 'latex'"),
    ],
    "tools.draw_readme": [("now", "unrecognized arguments: now")],
    "tools.emulate_hosts": [
        ("", "nothing to do; give --measure, or a command after --"),
        ("--count 1 --measure", "2 to 250 hosts can be emulated, not 1"),
        ("--gbit fast", "argument --gbit: invalid float value: 'fast'"),
    ],
    "tools.get_cifar10": [
        ("", "no CIFAR-10 data: "),
        ("--data mnist", "argument --data: invalid choice: 'mnist'"),
    ],
    "tools.get_fashion_mnist": [("", "no Fashion-MNIST data: "), ("--data-dir {here}", "no Fashion-MNIST files there")],
    "tools.inject_faults": [("--seed x", "argument --seed: invalid int value: 'x'")],
    "tools.prove_move": [
        ("", "give the old file and at least one new one, or --prune"),
        ("experiments/none.py experiments/cli.py", "git show: fatal: path 'experiments/none.py' does not exist"),
    ],
    "tools.verify_results": [("--results", "argument --results: expected one argument")],
}


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

# ---- checkpoints: of the command in GIVEN after its first epoch, which the test puts there ---------------------------


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
