"""A chart's specification as HTML, and as the PDF's lower views."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert

from experiments.store.files import write_atomically

LOWER = 0.64  # a view's height in the PDF

# A view takes its column's width, a phone's 350 pixels as well as a desk's 700, and keeps its font size. Vega-Lite
# fits a single view with its axes; for views above each other it can't, so their axes get 76 pixels.
_EMBED = """<div id="{id}" class="vega-chart" style="width:100%;max-width:700px"></div>
<script>
(() => {{
  const spec = {spec};
  const draw = () => {{
    const target = document.getElementById("{id}");
    const width = Math.max(target.clientWidth, 240);
    const labels = spec.usermeta?.room || 0; // names at the ends of lines
    const fit = (view, pixels) => {{
      if (view.width > 0) view.width = pixels;
      (view.vconcat || []).forEach((part) => fit(part, pixels));
    }};
    const stacked = "vconcat" in spec;
    const inner = stacked ? width - 76 - labels : width;
    fit(spec, inner);
    spec.config.view.continuousWidth = spec.config.view.discreteWidth = inner;
    if (!("vconcat" in spec || "hconcat" in spec || "concat" in spec || "facet" in spec || "repeat" in spec))
      spec.autosize = {{type: "fit-x", contains: "padding"}};
    vegaEmbed(target, spec, {{actions: false, renderer: "svg"}}).then(() => {{
      const drawing = target.querySelector("svg");
      drawing.style.maxWidth = "100%";
      drawing.style.height = "auto";
    }});
  }};
  document.readyState === "complete" ? draw() : addEventListener("load", draw);
}})();
</script>"""


def script() -> str:
    """The script element with Vega, Vega-Lite and Vega-Embed, for pages that work with no network.

    Its strings are escaped: neither an HTML parser nor Quarto's search for tables in raw HTML may find tags in it.
    """
    text = re.sub(r"<(table|script|!--)", r"\\x3c\1", bundle())
    text = re.sub(r"</(table|script)", r"<\\/\1", text)
    return f"<script>{text}</script>"


def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as a script that sets `vegaEmbed`. Made once for a version of vl-convert and then
    kept in the user's cache, as it takes seconds."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlperf"
    kept = root / f"vega-{metadata.version('vl-convert-python')}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    text = f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();"
    with contextlib.suppress(OSError):  # a home that can't be written to: made again the next time
        write_atomically(kept, text.encode())
    return text


def drawing(spec: dict[str, Any]) -> str:
    """The element and script that draw a specification once `vegaEmbed` is there."""
    text = json.dumps(spec, ensure_ascii=False).replace("<", "\\u003c")
    return _EMBED.format(id=f"vis-{hashlib.sha256(text.encode()).hexdigest()[:12]}", spec=text)


def without_script(source: str, alt: str) -> str:
    """The picture that a page without JavaScript has for a chart."""
    return f'<noscript><img src="{source}" alt="{html.escape(alt)}"></noscript>'


def printed(spec: Any) -> Any:
    """The specification for the PDF: a sheet has less room than a screen, so views are lower."""
    if isinstance(spec, list):
        return [printed(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    lower = ("height", "continuousHeight")
    return {k: round(LOWER * v) if k in lower and isinstance(v, int) else printed(v) for k, v in spec.items()}


def svg(spec: dict[str, Any]) -> str:
    """The specification's picture, as printed. Labels that Vega hides, for want of room, are left out: who searches or
    listens to the PDF would find them."""
    return re.sub(r'<text[^>]* opacity="0"[^>]*>[^<]*</text>', "", vl_convert.vegalite_to_svg(printed(spec)))
