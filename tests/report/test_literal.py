"""Results are data: whatever the strings of a stored run hold stands in the page, the PDF and the CSV as text."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pypandoc
import pytest

from experiments.store import evidence
from experiments.store import provenance as origins
from experiments.store.parquet import Run
from report import known_runs, literal
from report.engine import render
from report.figures import provenance
from tests.small_books import book, text_of

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "raw": "`<img src=x>`{=html}",
    "block": "\n\n::: {.callout-note}\n# Heading\n:::\n",
    "citation": "[@nobody2000] and @sec-none",
    "picture": "![](/etc/passwd)",
    "backticks": "a ` b `` c",
    "formula": "$x^2$ **bold** ~~out~~",
    "typst": '#read("/etc/passwd") #sys.version <label>',
    "shortcode": "{{< include /etc/passwd >}}",
    "link": "[here](javascript:alert(1)) <https://example.org>",
    "sheet": '=HYPERLINK("https://example.org")',
}


def shown(value: str) -> str:
    """The string in one line, as a reader sees it."""
    return re.sub(r"\s+", " ", value.replace("\u2060", "").replace("\u00a0", " ")).strip()


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("write", [literal.text, literal.code])
def test_a_string_comes_out_as_it_is(write: Callable[[str], str], value: str) -> None:
    command = [pypandoc.get_pandoc_path(), "--from=markdown", "--to=html", "--wrap=none"]
    source = f"Before {write(value)} after"
    page = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"<(\w+)", page)) <= {"p", "code"}
    assert shown(html.unescape(text_of(page))) == shown(f"Before {value} after")


def test_plain_text_needs_no_fences() -> None:
    assert literal.code("python a.py --M 8") == "`python a.py --M 8`"
    assert literal.code("a`b``") == "``` a`b`` ```"


def test_a_spreadsheet_finds_no_formula() -> None:
    frame = pd.DataFrame({"a": ["=1+1", "@x", "+cmd", "-x", "-5", "+3 %", "a=b"], "n": [-1, 2, 3, 4, 5, 6, 7]})
    rows = list(csv.reader(io.StringIO(literal.csv(frame))))
    assert [row[0] for row in rows] == ["a", "'=1+1", "'@x", "'+cmd", "'-x", "-5", "+3 %", "a=b"]
    assert rows[1][1] == "-1"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run for each hostile string, which has it wherever a string can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLPERF_COMMIT", "0" * 40)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        made = origins.provenance("p1_horovod", "x", {}, seed=0, device="cpu", started=at)
    places = ("device", "host_cpu", "host_kind", "command")
    return [
        Run(Path(name), made.model_copy(update=dict.fromkeys(places, f"x{text}") | {
            "run_id": name, "versions": {text: text}, "settings": {text: text}, "sources": {f"{text}.py": "0" * 64},
        }), 1)
        for name, text in HOSTILE.items()
    ]  # fmt: skip


def test_the_page_shows_a_planted_file_as_text(planted: list[Run], tmp_path: Path) -> None:
    known = known_runs.known(planted)
    verdict = evidence.Verdict(problems=[(name, "log", f"it says {text}") for name, text in HOSTILE.items()])
    made = [provenance.text_provenance_runs(known), provenance.tbl_provenance(known)]
    made.append(provenance.text_provenance_checks(verdict))  # the PDF has these, and no list of runs
    small = book(tmp_path, a="# T {#sec-t}\n\n" + "\n\n".join([*made, provenance.tbl_provenance_runs(known)]))
    render(small, ["html", "pdf"])
    page = (small.output / "report/a.html").read_text(encoding="utf-8")
    main = page[page.index("<main") : page.index("</main>")]
    assert not re.search(r"<(script|img|h[2-6]|details|math|em|cite)\b|class=\"callout|href=\"(javascript|https)", main)
    assert main.count("<strong>") == len(HOSTILE)  # the heading of each run
    text = shown(html.unescape(text_of(main)))
    for value in HOSTILE.values():
        assert text.count(shown(value)) >= 6, value
    if shutil.which("pdftotext"):
        pdf = str(small.output / small.pdf_name)
        printed = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, text=True, check=True).stdout
        flat = re.sub(r"[\s\u00a0\u2060\u00ad-]+", "", printed)
        for value in HOSTILE.values():
            assert re.sub(r"[\s-]+", "", value) in flat, value


def test_the_file_of_all_runs_has_a_planted_one_as_text(planted: list[Run]) -> None:
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(provenance.csv(known_runs.known(planted))))}
    for name, value in HOSTILE.items():
        assert rows[name]["device"] == f"x{value}"
