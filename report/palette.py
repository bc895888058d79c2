"""One look for one thing in all chapters: a device, weak and strong scaling, an M; and measured, projected and ideal.

Colours are Okabe and Ito's (2008), told apart with any common colour vision, and viridis for M. No chart tells by
colour alone: lines have labels or shapes, and legends have names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

CATEGORIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"]
ORDERED = "viridis"
BATCHES: Literal["plasma"] = "plasma"  # effective batches, which viridis would show as an M

DEVICES = {"H200": "#0072B2", "H100": "#56B4E9", "K80": "#E69F00", "CPU": "#D55E00"}
OTHER_DEVICE = "#6B7280"
PROCESSOR = re.compile(r"\b(Xeon|EPYC|Intel|AMD)\b")
SCALINGS = {"weak": "#009E73", "strong": "#CC79A7"}
INSTANCES = ["#440154", "#443983", "#31688E", "#21918C", "#35B779", "#90D743"]  # M = 1, 2, 4, 8, 16, 32
MODEL = "#4B5563"  # what a model says of no device in particular
ONE_LEARNER = "#C8CDD3"

# What was projected and not measured is hollow and dashed; the ideal is black and dotted.
MEASURED_POINT: dict[str, Any] = {"filled": True, "size": 60, "opacity": 1}
PROJECTED_POINT: dict[str, Any] = {"filled": False, "size": 60, "opacity": 1, "strokeDash": [2, 2]}
PROJECTED_LINE: dict[str, Any] = {"strokeDash": [6, 4]}
IDEAL_LINE: dict[str, Any] = {"color": "black", "strokeWidth": 1.5, "strokeDash": [2, 3]}


def device(name: str) -> str:
    """The colour of the device that a name has as a word: a series', a link's or a device's own."""
    found = next((colour for known, colour in DEVICES.items() if re.search(rf"\b{known}\b", name)), None)
    return found or (DEVICES["CPU"] if PROCESSOR.search(name) else OTHER_DEVICE)


def shades(colour: str, count: int) -> list[str]:
    """As many shades of a colour as needed, the colour itself first, then darker and lighter ones by turns."""
    steps = [0.0, -0.45, 0.4, -0.85, 0.65]
    return [_mixed(colour, steps[i % len(steps)]) for i in range(count)]


def _mixed(colour: str, part: float) -> str:
    """The colour with that part of white; of black where it is negative."""
    to = 255 if part > 0 else 0
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(own + abs(part) * (to - own)):02X}" for own in parts)


def ink(colour: str) -> str:
    """The colour as that of a text: dark enough to be read on white."""
    return _mixed(colour, -0.45)


def series(names: Sequence[str]) -> list[str]:
    """A colour for each series: its device's, in another shade where the device has several."""
    own = [device(name) for name in names]
    return [shades(colour, own.count(colour))[own[:i].count(colour)] for i, colour in enumerate(own)]


def instances(numbers: Iterable[int]) -> list[str]:
    """The colours of these M; one between two powers of two has the nearer one's."""
    return [INSTANCES[min(len(INSTANCES) - 1, round(math.log2(m)))] for m in numbers]
