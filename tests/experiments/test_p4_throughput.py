"""The throughput benchmark runs, its peers do the same work, and its ratios follow from the windows."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from derivations import roofline
from experiments import p4_throughput
from experiments.p4 import compiled_engine, conventional_loop, datasets, device_speed, each_m, training
from experiments.p4.resnet import seeded
from experiments.p4.synthetic import synthetic
from experiments.store import parquet

SMALL = ["--M", "2", "--batch-size", "8", "--windows", "2", "--seconds", "0.04", "--device", "cpu", "--workers", "0"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tiny images, ResNet-14, and next to no warm-up."""
    data = synthetic(seed=0, train=64, test=16)
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: data)
    monkeypatch.setattr(conventional_loop, "resnet44", lambda: seeded(14, 0))
    monkeypatch.setattr(conventional_loop, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(compiled_engine, "COMPILER", {"disable": True})
    monkeypatch.setattr(each_m, "DEPTH", 14)
    monkeypatch.setattr(p4_throughput, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(device_speed, "COPY_BYTES", {"cpu": 1 << 20})


def windows(**rates: list[float]) -> pd.DataFrame:
    """Rows as `measure` makes them, with the given images/s; each image moves a thousandth of the bandwidth."""
    rows = [
        {
            "M": 2, "batch_size": 64, "contender": contender, "images_per_second": rate,
            "setup_seconds": None if contender == "conventional" else 1.5, "copy_bandwidth": 7e9,
            "bytes_per_image": 7_000_000,
        }
        for contender, found in rates.items() for rate in found
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_ratio_is_of_medians_and_its_range_is_the_widest() -> None:
    assert p4_throughput.ratio([10, 20, 40], [4, 5, 10]) == (20 / 5, 10 / 10, 40 / 4)


def test_the_table_shows_rates_ratios_steps_and_shares() -> None:
    frame = windows(ours=[400, 500, 640], compiled=[250], eager=[100, 125, 200], conventional=[20, 25, 50])
    frame.loc[0, "setup_seconds"] = 9.5  # ours' first turn; the others found its kernels in a cache
    ours, compiled, eager, peer = (re.split(r"\s{2,}", line.strip()) for line in p4_throughput.table(frame))
    assert ours == ["2", "ours", "500 (400–640)", "256.00", "50.0%", "9.5"]
    assert compiled == ["2", "compiled", "250 (250–250)", "512.00", "2.00 (1.60–2.56)", "25.0%", "1.5"]
    assert eager == ["2", "eager", "125 (100–200)", "1024.00", "4.00 (2.00–6.40)", "12.5%", "1.5"]
    assert peer == ["2", "conventional", "25 (20–50)", "5120.00", "20.00 (8.00–32.00)", "2.5%"]


def test_each_contender_is_held_against_its_own_traffic() -> None:
    assert p4_throughput.traffic("fused", "bf16") == roofline.bytes_per_image(2, 44, "fused")
    assert p4_throughput.traffic("compiled", "bf16") == roofline.bytes_per_image(2, 44, "conventional")
    assert p4_throughput.traffic("plain", "fp32") == roofline.bytes_per_image(4, 44, "conventional")
    assert p4_throughput.traffic("dataloader", "tf32") == roofline.bytes_per_image(4, 44, "conventional")


@pytest.mark.usefixtures("quick")
def test_contenders_are_measured_in_alternating_order_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    lines: list[str] = []
    arguments = [*SMALL, "--data", "synthetic", "--write", "--results", str(tmp_path)]
    assert p4_throughput.main(arguments, lines.append) == 0
    assert len(lines) == 7  # device, header, four contenders, file
    stored = parquet.read("p4_throughput", tmp_path)
    forth = ["ours", "compiled", "eager", "conventional"]
    assert stored["contender"].tolist() == [name for name in forth + forth[::-1] for _ in range(2)]
    assert (stored["images_per_second"] > 0).all() and (stored["copy_bandwidth"] > 0).all()
    assert stored["setup_seconds"].isna().equals(stored["contender"] == "conventional")
    engines = stored.drop_duplicates("contender").set_index("contender")["engine"]
    assert engines.to_dict() == {
        "ours": "plain",
        "compiled": "compiled",
        "eager": "plain",
        "conventional": "dataloader",
    }
    assert set(stored["dataset"]) == {"synthetic"} and set(stored["M"]) == {2}
    assert p4_throughput.main(arguments, lines.append) == 0
    (run,) = parquet.runs(tmp_path)  # the same command replaces its run
    peers = {"experiments/p4/conventional_loop.py", "experiments/p4/compiled_engine.py"}
    assert peers | {"experiments/p4_throughput.py"} < set(run.provenance.sources)


def test_a_window_is_long_enough_and_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only steps advance, by a second each."""
    clock, rates = 0.0, []

    class Engine:
        def start_epoch(self, table: torch.Tensor, rate: float) -> None:
            rates.append(tuple(table.shape))

        def step(self) -> None:
            nonlocal clock
            clock += 1.0

    config = p4_throughput.configure(p4_throughput.parser().parse_args([*SMALL, "--data", "synthetic"]))[0]
    data = synthetic(seed=0, train=64, test=16)
    monkeypatch.setattr(training, "make_engine", lambda config, data, kind: Engine())
    monkeypatch.setattr(p4_throughput, "now", lambda device: clock)
    setup, found = p4_throughput.engine_rates(config, data, windows=3, seconds=4.0)
    assert setup == 2 * p4_throughput.WARM_UP_STEPS
    assert found == [16.0] * 3 and clock == setup + 3 * 4  # M·B images a step
    assert rates == [(8, 16, 6)] * 4  # 32 steps in epochs of 8


@pytest.mark.usefixtures("quick")
def test_the_eager_loop_does_without_tf32_and_settings_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool, bool]] = []
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    assert not cudnn.benchmark

    def engine(config: object, *_: object) -> tuple[float, list[float]]:
        seen.append(("engine", cudnn.benchmark, cudnn.allow_tf32))
        return 1.0, [1.0]

    def peer(*_: object) -> list[float]:
        seen.append(("conventional", cudnn.benchmark, cudnn.allow_tf32))
        return [1.0]

    monkeypatch.setattr(p4_throughput, "engine_rates", engine)
    monkeypatch.setattr(conventional_loop, "images_per_second", peer)
    assert p4_throughput.main([*SMALL, "--turns", "1", "--data", "synthetic"], lambda line: None) == 0
    assert seen == [("engine", True, False)] * 3 + [("conventional", True, True)]
    assert (cudnn.benchmark, cudnn.allow_tf32) == before
