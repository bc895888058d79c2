"""The short form of the fault injection finds nothing lost."""

from __future__ import annotations

import pytest

from tools import inject_faults


@pytest.mark.slow
def test_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert inject_faults.main(["--short"]) == 0
    said = capsys.readouterr().out
    assert "3 killed scripts: 0 faults" in said
    assert "10 killed writers: 0 faults" in said and "1 killed renderers: 0 faults" in said
    assert "60 flipped bits: 0 faults" in said
