"""Figures are tested as pages draw them."""

from __future__ import annotations

import pytest

from report import show


@pytest.fixture(scope="session", autouse=True)
def page() -> None:
    """What every page starts with: charts share their channels."""
    show.setup()
