"""Line charts as inline SVG: sharp at any size, in the colours of the page, without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from stylegan_inv.visualization.html_page import render

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 30, 24
#: A longer series is averaged in groups of neighbouring points.
_MAX_POINTS = 300
#: A series of at most this length also gets a marker at each point.
_MAX_MARKERS = 12
#: Largest ratio of values on a linear vertical axis.
_LINEAR_RANGE = 30
#: Larger numbers are not drawn, as their differences overflow.
_LARGEST = 1e100
#: Number of colours in ``templates/page.css``.
_COLOURS = 8

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    """Maps values of one axis to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> str:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        fraction = (value - low) / (high - low) if high > low else 0.5
        return f"{self.start + (self.end - self.start) * fraction:.1f}"


@dataclass(frozen=True)
class _Line:
    """A series in pixels, for the template."""

    name: str
    colour: str
    path: str
    key_x: int
    markers: Sequence[tuple[str, str]] = field(default_factory=list)


def line_chart(title: str, series: Mapping[str, Points]) -> Markup:
    """Returns a small chart. Its vertical axis is logarithmic where the values span more than a factor of 30.

    Args:
        title: Text above the chart.
        series: Name -> points (x, y) in the order of x. Points that are not finite or beyond 1e100 are omitted, and
            long series are averaged in groups of neighbouring points. The name of a single series is not shown.

    Returns:
        The chart, or an empty string if no series has two points.
    """
    finite = {
        name: [(x, _drawn(y)) for x, y in points if abs(x) < _LARGEST and abs(y) < _LARGEST]
        for name, points in series.items()
    }
    kept = {name: _averaged(points) for name, points in finite.items() if points}
    if max(map(len, kept.values()), default=0) < 2:
        return Markup("")
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    log = min(ys) > 0 and max(ys) > _LINEAR_RANGE * min(ys)
    ticks = _power_ticks(min(ys), max(ys)) if log else _round_ticks(min(ys), max(ys))
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(min(*ticks, *ys), max(*ticks, *ys), _HEIGHT - _BOTTOM, _TOP, log)
    ends = "; ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in kept.items())
    return render(
        "line_chart.html",
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        title=title,
        description=f"{title}: {ends}",
        y_ticks=[(f"{tick:g}", y_axis(tick)) for tick in ticks],
        x_ticks=[(f"{x:g}", x_axis(x), anchor) for x, anchor in {min(xs): "start", max(xs): "end"}.items()],
        lines=[_line(name, points, i, len(kept), x_axis, y_axis) for i, (name, points) in enumerate(kept.items())],
    )


def _drawn(y: float) -> float:
    return y if abs(y) > 1 / _LARGEST else 0.0  # a logarithm of the smallest numbers fails


def _line(name: str, points: Points, index: int, count: int, x_axis: _Axis, y_axis: _Axis) -> _Line:
    pixels = [(x_axis(x), y_axis(y)) for x, y in points]
    spacing = max(16, min(60, 170 // count))
    return _Line(
        name,
        colour=f"var(--c{index % _COLOURS})",
        path=" ".join(f"{x},{y}" for x, y in pixels),
        key_x=_WIDTH - _RIGHT - (count - 1 - index) * spacing,
        markers=pixels if len(pixels) <= _MAX_MARKERS else [],
    )


def _averaged(points: Points) -> Points:
    size = math.ceil(len(points) / _MAX_POINTS)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _round_ticks(low: float, high: float) -> list[float]:
    """Returns three to six round numbers that enclose the values."""
    span = high - low or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = -math.floor(math.log10(step)) + 1  # 3 * 0.1 is 0.30000000000000004
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def _power_ticks(low: float, high: float) -> list[float]:
    """Returns at most five powers of ten that enclose the values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = math.ceil((last - first) / 4)
    return [10.0**power for power in range(first, last + 1, stride)]
