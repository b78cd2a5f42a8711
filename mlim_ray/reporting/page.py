"""One self-contained HTML page from a template: nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mlim_ray.reporting.charts import Chart
from mlim_ray.reporting.figures import finite

DASH = "\u2013"
"""Stands for a figure that is missing or not a finite number."""


def render_page(template: str, charts: Mapping[str, Chart], **content: Any) -> str:
    """Render a template of `templates/`; everything in `content` is escaped.

    Args:
        template: file name.
        charts: by the id of the element that shows each.
        content: what the template names.
    """
    return (
        _environment()
        .get_template(template)
        .render(charts=_script_json(charts), plotly_js=Markup(get_plotlyjs()) if charts else "", **content)
    )


def render_part(template: str, **content: Any) -> str:
    """Render a template of `templates/` that is a part of a page; everything in `content` is escaped."""
    return _environment().get_template(template).render(**content)


def render_text(template: str, **content: Any) -> str:
    """Render a template of `templates/` that is no HTML: nothing is escaped."""
    return _environment().overlay(autoescape=False).get_template(template).render(**content)


def fixed(value: Any, digits: int) -> str:
    """A number with so many digits after the point."""
    number = finite(value)
    return DASH if number is None else f"{number:,.{digits}f}"


def figure(value: Any) -> str:
    """A number in four significant digits; anything else as it is."""
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    number = finite(value)
    if number is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{number:.4g}"


def knob(value: Any) -> str:
    """A searched value in three significant digits."""
    number = finite(value)
    return figure(value) if number is None else f"{number:.3g}"


def percent(value: Any, digits: int = 0) -> str:
    """A ratio in per cent."""
    number = finite(value)
    if number is None:
        return DASH
    # Adding zero turns a rounded -0 into 0.
    return f"{round(number * 100, digits) + 0.0:.{digits}f} %"


def times(value: Any) -> str:
    """A ratio as a multiple."""
    number = finite(value)
    return DASH if number is None else f"{number:.2f}\u00d7"


def duration(value: Any) -> str:
    """Seconds in the units that a person would choose."""
    seconds = finite(value)
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def data_uri(png: bytes) -> str:
    """A PNG as the address of an image in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mlim_ray.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": fixed,
        "figure": figure,
        "knob": knob,
        "percent": percent,
        "times": times,
        "duration": duration,
        "data_uri": data_uri,
    }
    return environment


def _script_json(content: Any) -> Markup:
    """JSON that can stand inside a script element, whatever texts it holds."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
