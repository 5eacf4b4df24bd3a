"""Curves as inline SVG: sharp at any size, in the colours of the page, readable without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from stylegan_inv.visualization.html_page import Html

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 30, 24
#: More points than this are averaged in groups.
_POINTS = 300
_COLOURS = 8

Points = Sequence[tuple[float, float]]


def curves(title: str, series: Mapping[str, Points]) -> Html:
    """One small chart; its vertical axis is logarithmic where values span more than a factor of 30.

    Args:
        title: Above the chart.
        series: Name -> points (x, y) in the order of x. Points that are not finite are left out. One of a single
            series needs no name. Long ones are averaged in groups of neighbours.

    Returns:
        The chart; nothing if no series has two points.
    """
    kept = {name: _thinned([(x, y) for x, y in points if math.isfinite(y)]) for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if max(map(len, kept.values()), default=0) < 2:
        return Html("")
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    log = min(ys) > 0 and max(ys) > 30 * min(ys)
    ticks = _powers(min(ys), max(ys)) if log else _steps(min(ys), max(ys))
    low, high = min(*ticks, *ys), max(*ticks, *ys)

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(x, min(xs), max(xs), False)

    def down(y: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _share(y, low, high, log)

    parts = [f'<text class=name x="{_LEFT}" y="18">{escape(title)}</text>']
    for tick in ticks:
        y = f"{down(tick):.1f}"
        parts.append(f'<line class=rule x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{tick:g}</text>')
    for x, anchor in {min(xs): "start", max(xs): "end"}.items():
        parts.append(f'<text x="{across(x):.1f}" y="{_HEIGHT - 7}" text-anchor="{anchor}">{x:g}</text>')
    for number, (name, points) in enumerate(kept.items()):
        colour = f"var(--c{number % _COLOURS})"
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        parts.append(f'<polyline class=curve style="stroke:{colour}" points="{path}"/>')
        if len(points) <= 12:
            dots = (f'<circle r="2.5" cx="{across(x):.1f}" cy="{down(y):.1f}"/>' for x, y in points)
            parts.append(f'<g style="fill:{colour}">{"".join(dots)}</g>')
        if len(kept) > 1:
            parts.append(_key(name, number, len(kept), colour))
    said = "; ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in kept.items())
    return Html(
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {said}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _key(name: str, number: int, of: int, colour: str) -> str:
    """The name of a series in its colour, at the top right."""
    x = _WIDTH - _RIGHT - (of - 1 - number) * max(16, min(60, 170 // of))
    return f'<text x="{x}" y="18" text-anchor="end" style="fill:{colour};font-weight:600">{escape(name)}</text>'


def _thinned(points: Points) -> Points:
    group = math.ceil(len(points) / _POINTS)
    if group <= 1:
        return points
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    return [(some[-1][0], sum(y for _, y in some) / len(some)) for some in groups]


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low) if high > low else 0.5


def _steps(low: float, high: float) -> list[float]:
    """Round numbers that enclose the values, three to six of them."""
    span = high - low or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * times for times in (1, 2, 5, 10) if span / (unit * times) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = -math.floor(math.log10(step)) + 1  # 3 * 0.1 is 0.30000000000000004
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """The powers of ten that enclose the values, at most five of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = math.ceil((last - first) / 4)
    return [10.0**power for power in range(first, last + 1, every)]
