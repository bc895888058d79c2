"""experiments.scaling.published: the table's form, the sizes of networks, bad input, and no need of scipy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.scaling import published
from experiments.store.files import ROOT

HEAD = "series,framework,network,machine,precision,node_learners,link_gbit_per_second,learners,per_learner_batch"
FEW = f"""{HEAD},unit,value,source
A,F,N,M,FP32,,,1,,images/s,100,me
A,F,N,M,FP32,,,4,,images/s,360,me
A,F,N,M,FP32,,,8,,images/s,700,me
"""


def test_the_projects_table_names_its_sources() -> None:
    frame = published.load()
    assert {"DeepLearningExamples @729963d" in s or "@5984ffe" in s or "@27743d0" in s for s in frame.source} == {True}
    assert set(frame.unit) == {"images/s", "efficiency"}
    mxnet = frame[frame.series == "MXNet V100 AMP"]
    assert list(mxnet.value) == [1492, 2935, 5726, 11368, 21484]
    linked = frame[frame.link_gbit_per_second.notna()]
    assert set(linked.link_gbit_per_second) == {10, 25} and linked.node_learners.notna().all()
    assert {published.K80_NODE, published.K80_CLUSTER} <= set(frame.series)


def test_sizes_of_networks() -> None:
    sizes = {name: count // published.FP32 for name, (count, _) in published.networks().items()}
    assert sizes["ResNet-50"] == 25_557_032 and sizes["AlexNet"] == 60_965_224
    assert (sizes["VGG-16"], sizes["VGG-19"]) == (138_357_544, 143_667_240)


def test_seconds_of_a_p100() -> None:
    seconds = published.p100_seconds(published.load())
    assert seconds["VGG-16"] == 1 / 154
    assert seconds["ResNet-50"] < seconds["ResNet-101"] < seconds["ResNet-152"]
    only = published.load().query("network == 'VGG-16'")
    assert "ResNet-101" not in published.p100_seconds(only)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("series,learners\nA,1\n", "columns are missing: framework"),
        (FEW.replace(",100,me", ",,me"), "a cell is empty"),
        (FEW.replace("360", "many"), "must be numbers"),
        (FEW.replace("360", "-360"), "must be positive and finite"),
        (FEW.replace("360", "inf"), "must be positive and finite"),
        (FEW.replace(",8,,", ",4,,"), "the same learners and batch twice"),
        (FEW.replace(",8,,", ",8.5,,"), "whole numbers"),
        (FEW.replace(",8,,", ",8,64,"), "a batch for some of its points only"),
        (FEW.replace("images/s,700", "GB,700"), "unknown unit GB"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | None, message: str) -> None:
    source = tmp_path / "series.csv"
    if text is not None:
        source.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        published.load(source)
    assert str(source) in str(caught.value)


def test_the_report_needs_no_scipy() -> None:
    chapter = ROOT / "report" / "scaling-model.qmd"
    cell = chapter.read_text().split("```{python}\n")[1].split("```")[0]
    imports = "\n".join(line for line in cell.splitlines() if line.startswith(("import", "from")))
    code = f"import sys\nsys.modules['scipy'] = None\n{imports}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=chapter.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
