"""The counters on tiny nets, the command, and the committed counts against today's derivations."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from derivations import receptive_field
from experiments import p3_crosscheck as p3
from experiments.store import parquet

TINY = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(100, 3))  # on 5×5 pixels


def test_parameters_by_hand():
    # 3·3·2·4 + 100·3 = 372 weights, 4 + 3 biases
    assert p3.parameters(TINY) == {"parameters": 379, "weights": 372, "biases": 7}


def test_flop_counter_counts_two_per_mac_and_no_bias():
    # 25·72 + 300 = 2100 multiply-accumulates
    assert p3.flop_counter(TINY, torch.zeros(1, 2, 5, 5)) == {"flops": 2 * 2100}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_fvcore_counts_one_per_mac_and_batchnorm():
    pytest.importorskip("fvcore")
    assert p3.fvcore(TINY, torch.zeros(1, 2, 5, 5)) == {"macs": 2100, "elementwise": 0}
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 3)).eval()
    # a scale and a shift for each of 100 values
    assert p3.fvcore(net, torch.zeros(1, 2, 5, 5)) == {"macs": 2300, "elementwise": 200}


def torchvision(monkeypatch, alexnet, vgg19):
    """A stand-in for torchvision, whose wheel fits only some builds of torch."""
    models = SimpleNamespace(alexnet=lambda: alexnet, vgg19=lambda: vgg19)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(__version__="0.99.1", models=models))


@pytest.fixture(params=["ImportError", "RuntimeError"])  # the latter: built for another torch
def no_torchvision(request, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchvision")
    (folder / "torchvision.py").write_text(f"raise {request.param}('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(str(folder))


def test_torchvision_counts_its_own_nets(monkeypatch):
    torchvision(monkeypatch, nn.Linear(4, 2), nn.Conv2d(1, 3, 2))
    assert p3.torchvision_nets() == {
        "alexnet-torchvision": {"parameters": 10, "weights": 8, "biases": 2},  # 4·2 + 2
        "vgg19": {"parameters": 15, "weights": 12, "biases": 3},  # 2·2·1·3 + 3
    }


def test_a_torchvision_that_does_not_fit_counts_nothing(no_torchvision):
    assert p3.torchvision_nets() == {}


@pytest.mark.parametrize(
    ("stack", "side"), [([(3, 1)], 3), ([(5, 1)] * 3, 13), ([(3, 2), (3, 1)], 7), ([(2, 2), (2, 2)], 4)]
)
def test_gradient_support(stack, side):
    assert p3.gradient_support(stack, 40) == side


def test_gradient_support_needs_room():
    with pytest.raises(ValueError, match="13-pixel input is too small"):
        p3.gradient_support([(5, 1)] * 3, 13)


def test_small_nets_agree_with_the_derivation():
    nets = ["inception-naive", "inception-reduced", "inception-3b", "resnet44"]
    frame = {(r["net"], r["quantity"], r["counter"]): r["value"] for r in p3.count_nets(nets, with_fvcore=False)}
    for net in nets:
        for quantity in ("parameters", "weights", "biases"):
            assert frame[net, quantity, "torch"] == frame[net, quantity, "derivation"]
        assert frame[net, "flops", "torch.flop_counter"] == frame[net, "flops", "derivation"]


@pytest.mark.parametrize("net", ["alexnet", "alexnet-ungrouped", "alexnet-torchvision", "vgg19"])
def test_large_nets_have_the_derived_parameters(net):
    with torch.device("meta"):
        model = p3.NETS[net][0]()
    expected = p3.derived()[net]
    assert p3.parameters(model) == {name: expected[name] for name in ("parameters", "weights", "biases")}


def test_command_writes_a_run(tmp_path, monkeypatch, capsys, no_torchvision):
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setattr(p3, "NETS", {"inception-reduced": p3.NETS["inception-reduced"]})
    monkeypatch.setattr(p3.importlib.util, "find_spec", lambda name: None)
    arguments = ["--max-layers", "2", "--kernels", "3", "--results", str(tmp_path)]
    assert p3.main(arguments) == 0 and p3.main(arguments) == 0
    assert [path.suffix for path in sorted((tmp_path / "p3_crosscheck").iterdir())] == [".log", ".parquet"]
    frame = parquet.read("p3_crosscheck", results=tmp_path)
    assert set(frame.counter) == {"derivation", "torch", "torch.flop_counter"}
    assert frame[frame.net == "stack"].layers.notna().all() and frame[frame.net != "stack"].kernel.isna().all()
    said = capsys.readouterr().err
    assert "fvcore is not installed" in said and "keras is not installed" in said
    assert "torchvision can't be imported, its counts are left out" in said


def test_torchvisions_counts_are_rows_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setattr(p3, "NETS", {"inception-reduced": p3.NETS["inception-reduced"]})
    monkeypatch.setattr(p3.importlib.util, "find_spec", lambda name: None)
    torchvision(monkeypatch, nn.Linear(4, 2), nn.Linear(3, 1))
    assert p3.main(["--max-layers", "1", "--kernels", "3", "--results", str(tmp_path)]) == 0
    frame = parquet.read("p3_crosscheck", results=tmp_path)
    rows = frame[(frame.counter == "torchvision") & (frame.quantity == "parameters")]
    assert dict(zip(rows.net, rows.value, strict=True)) == {"alexnet-torchvision": 10, "vgg19": 4}
    assert parquet.runs(tmp_path)[0].provenance.versions["torchvision"] == "0.99.1"


def committed(**where):
    """Rows of the committed counts as plain dictionaries, those whose columns have the given values."""
    rows = parquet.read("p3_crosscheck").to_dict("records")
    assert rows, "no committed counts: run python experiments/p3_crosscheck.py"
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def test_committed_counts_are_todays_derivations():
    stored = [row for row in committed(counter="derivation") if row["quantity"] != "receptive_field"]
    expected = {(net, quantity): value for net, of in p3.derived().items() for quantity, value in of.items()}
    assert {(row["net"], row["quantity"]): row["value"] for row in stored} == expected


def test_committed_receptive_fields_are_todays_formula():
    stored = committed(quantity="receptive_field", net="stack", counter="torch")
    assert len(stored) == 24
    for row in stored:
        assert row["value"] == receptive_field.stacked(int(row["layers"]), int(row["kernel"]))


def test_committed_counters_agree_with_todays_derivations():
    expected = p3.derived()
    rows = [row for row in committed() if row["quantity"] in ("parameters", "weights", "biases", "flops")]
    for row in rows:
        assert row["value"] == expected[row["net"]][row["quantity"]], row
    assert {row["counter"] for row in rows} >= {"torch", "torch.flop_counter"}
    elementwise = {row["net"]: row["value"] for row in committed(counter="fvcore", quantity="elementwise")}
    for row in committed(counter="fvcore", quantity="macs"):
        assert row["value"] - elementwise[row["net"]] == expected[row["net"]]["macs"]


def test_a_commit_that_cannot_be_told_stops_before_counting(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday")
    monkeypatch.setattr(p3, "count_nets", lambda *_: pytest.fail("too late"))
    assert p3.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("p3_crosscheck: DLPERF_COMMIT must be a commit")
    assert not list(tmp_path.iterdir())
