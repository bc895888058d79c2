"""What devices are called."""

from __future__ import annotations

from experiments.machine.device_names import short_name


def test_short_names_of_devices() -> None:
    assert short_name("Intel(R) Xeon(R) Processor") == "Intel Xeon"
    assert short_name("NVIDIA H100 80GB HBM3") == "NVIDIA H100"
    assert short_name("AMD EPYC") == "AMD EPYC"
    assert short_name("Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz") == "Intel Xeon CPU E5-2680 v3 @ 2.50GHz"


def test_a_name_is_never_code() -> None:
    """Wide twins have no meaning in Markdown, HTML or Typst."""
    assert short_name("a<b>*c*\n`d` [@e]") == "a＜b＞＊c＊ ｀d｀ ［＠e］"
