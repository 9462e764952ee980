"""Line charts and heat maps as hand-made inline SVG: no plotting library, no script, the page's own colours.

Names given here are HTML already escaped by the caller; numbers are ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence

Series = Sequence[tuple[float, float]]  # (step, value), steps rising
Stretch = tuple[float, float, float, float]  # of a series: last step, mean, lowest, highest

WIDTH, HEIGHT = 420, 190  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22  # margins for the axes
POINTS = 120  # drawn for each line; longer series are averaged in that many stretches, with the range behind
COLOURS = 6
HUGE = 1e300  # beyond it, differences overflow; drawn as if not finite


def chart(title: str, lines: Mapping[str, tuple[Series, str]], along: str = "step") -> str:
    """One chart of {name: (points, last value as text)}, `along` what. Values that are not finite are gaps."""
    stretches = {name: condense(points) for name, (points, _) in lines.items()}
    finite = [stretch for points in stretches.values() for stretch in points if stretch is not None]
    legend = "".join(
        f'<span class="c{i % COLOURS}">{"" if len(lines) == 1 else name} <b>{last}</b></span>'
        for i, (name, (_, last)) in enumerate(lines.items())
    )
    head = f"<figcaption><h3>{title}</h3><div>{legend}</div></figcaption>"
    if not finite:
        return f'<figure class="chart">{head}<p>no finite value</p></figure>'
    x_low, x_high = widened(min(s[0] for s in finite), max(s[0] for s in finite))
    y_ticks = ticks(*widened(min(s[2] for s in finite), max(s[3] for s in finite)))
    y_low, y_high = y_ticks[0][0], y_ticks[-1][0]

    def x(step: float) -> float:
        return round(LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(t) + 3.5:.1f}" text-anchor="end">{label}</text>'
        for t, label in y_ticks
    ]
    for t, _ in ticks(x_low, x_high):
        if x_low <= t <= x_high:
            anchor = "end" if x(t) > WIDTH - RIGHT - 12 else "middle"  # the last one must not stick out
            parts.append(f'<text class="tick" x="{x(t)}" y="{HEIGHT - 6}" text-anchor="{anchor}">{count(t)}</text>')
    for i, points in enumerate(stretches.values()):
        drawn = "".join(curve(run, x, y, along) for run in runs(points))
        parts.append(f'<g class="c{i % COLOURS}">{drawn}</g>')
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by {along}">{"".join(parts)}</svg>'
    return f'<figure class="chart">{head}{drawing}</figure>'


def curve(run: Sequence[Stretch], x: Callable[[float], float], y: Callable[[float], float], along: str = "step") -> str:
    """A line through the means, the range behind it, and dots that say their numbers when pointed at."""
    line = " ".join(f"{x(step)},{y(mean)}" for step, mean, _, _ in run)
    dots = "".join(
        f'<circle class="dot{" alone" if len(run) == 1 else ""}" cx="{x(step)}" cy="{y(mean)}" r="4">'
        f"<title>{along} {step:g}: {mean:.5g}</title></circle>"
        for step, mean, _, _ in run
    )
    band = ""
    if any(low < high for _, _, low, high in run):
        upper = " ".join(f"{x(step)},{y(high)}" for step, _, _, high in run)
        lower = " ".join(f"{x(step)},{y(low)}" for step, _, low, _ in reversed(run))
        band = f'<polygon class="band" points="{upper} {lower}"/>'
    return f'{band}<polyline class="line" points="{line}"/>{dots}'


def condense(points: Series) -> list[Stretch | None]:
    """At most `POINTS` stretches of neighbouring points; None where a stretch has no finite value."""
    out: list[Stretch | None] = []
    pieces = min(len(points), POINTS)
    for i in range(pieces):
        stretch = points[i * len(points) // pieces : (i + 1) * len(points) // pieces]
        values = [value for _, value in stretch if abs(value) < HUGE]  # NaN is not
        step = stretch[-1][0]
        out.append((step, sum(values) / len(values), min(values), max(values)) if values else None)
    return out


def runs(points: Sequence[Stretch | None]) -> list[list[Stretch]]:
    """The pieces between the gaps."""
    pieces: list[list[Stretch]] = [[]]
    for point in points:
        if point is not None:
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def widened(low: float, high: float) -> tuple[float, float]:
    """A range that is never empty, nor so narrow that float arithmetic cannot divide it."""
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size + 1e-300:
        return low, high
    around = 0.1 * size if size > 1e-290 else 1.0
    return low - around, high + around


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Three to seven round numbers (1, 2 or 5 times a power of ten apart) that enclose low < high, and as text."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if 1e-5 < step < 1e6:
        digits = max(0, -math.floor(math.log10(step * 1.001)))
        return [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]
    return [(i * step, f"{i * step:.3g}") for i in range(first, last + 1)]


def count(value: float) -> str:
    """A number of steps in few characters: 1500 -> 1.5k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def heat_map(counts: Sequence[Sequence[int]], totals: Sequence[int], names: Sequence[str]) -> str:
    """counts[true][predicted] -> squares as dark as their share of the row's total; numbers where there is room."""
    k = len(names)
    cell = max(8, min(44, 560 // k))
    text = min(12.0, cell * 0.8)
    margin = min(160.0, 10 + max(len(name) for name in names) * text * 0.56)
    side = k * cell
    parts = [f'<rect class="frame" x="{margin:.1f}" y="{margin:.1f}" width="{side}" height="{side}"/>']
    for t, row in enumerate(counts):
        for p, n in enumerate(row):
            if not n:
                continue
            x, y = margin + p * cell, margin + t * cell
            opacity = (n / totals[t]) ** 0.6  # so that a class lost one time in twenty still shows
            place = f'x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" fill-opacity="{opacity:.2f}"'
            says = f"<title>{names[t]} taken for {names[p]}: {n} of {totals[t]}</title>"
            parts.append(f'<rect class="{"hit" if t == p else "miss"}" {place}>{says}</rect>')
            if cell >= 24:
                kind = "number on" if opacity > 0.5 else "number"
                parts.append(f'<text class="{kind}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}">{n}</text>')
    for i, name in enumerate(names):
        line, edge = f"{margin + (i + 0.5) * cell + text / 3:.1f}", f"{margin - 5:.1f}"
        parts.append(f'<text x="{edge}" y="{line}" text-anchor="end" font-size="{text}">{name}</text>')
        turned = f"translate({line} {edge}) rotate(-90)"
        parts.append(f'<text transform="{turned}" font-size="{text}">{name}</text>')
    size = f"{margin + side + 2:.0f}"
    head = (
        f'<svg class="heat" viewBox="0 0 {size} {size}" style="max-width:{size}px" role="img" aria-label="confusion">'
    )
    return f"{head}{''.join(parts)}</svg>"
