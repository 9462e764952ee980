"""A chart of shares over the pictures of each class that were learnt from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pictura.evaluation.charts import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks, widened
from pictura.evaluation.panels import Panel, escape, percent

Points = Sequence[tuple[int, float, float]]  # pictures of each class, share, half width of its interval
WHAT = "top-1 by pictures of each class"


@dataclass(frozen=True)
class Rise(Panel):
    """{name: points} as lines with their intervals behind; each doubling of pictures is as wide as the next.

    level: a share that needs no pictures, with its name, drawn across.
    """

    lines: Mapping[str, Points]
    level: tuple[str, float] | None = None

    def html(self) -> str:
        shots = sorted({n for points in self.lines.values() for n, _, _ in points})
        ends = [
            height(mean + side * half) for some in self.lines.values() for _, mean, half in some for side in (-1, 1)
        ]
        ends += [height(self.level[1])] if self.level else []
        left, right = widened(math.log2(shots[0]), math.log2(shots[-1]))
        levels = ticks(*widened(min(ends), max(ends)))
        bottom, top = levels[0][0], levels[-1][0]

        def x(n: int) -> float:
            return round(LEFT + 8 + (math.log2(n) - left) / (right - left) * (WIDTH - LEFT - RIGHT - 16), 1)

        def y(value: float) -> float:
            return round(HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM), 1)

        def curve(points: Points) -> str:
            above, on, below = ([f"{x(n)},{y(height(m + side * h))}" for n, m, h in points] for side in (1, 0, -1))
            dots = "".join(
                f'<circle class="dot alone" cx="{x(n)}" cy="{y(height(mean))}" r="3.5">'
                f"<title>{n} of each class: {percent(mean)} ± {100 * half:.1f}</title></circle>"
                for n, mean, half in points
            )
            band = f'<polygon class="band" points="{" ".join(above + below[::-1])}"/>'
            return f'{band}<polyline class="line" points="{" ".join(on)}"/>{dots}'

        parts = [
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v)}" y2="{y(v)}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(v) + 3.5:.1f}" text-anchor="end">{text} %</text>'
            for v, text in levels
        ]
        parts += [f'<text class="tick" x="{x(n)}" y="{HEIGHT - 6}" text-anchor="middle">{n}</text>' for n in shots]
        if self.level:
            across = " ".join(f"{end},{y(height(self.level[1]))}" for end in (LEFT, WIDTH - RIGHT))
            parts.append(
                f'<g class="c{COLOURS - 1}"><polyline class="line" stroke-dasharray="5 4" points="{across}"/></g>'
            )
        parts += [f'<g class="c{i % COLOURS}">{curve(points)}</g>' for i, points in enumerate(self.lines.values())]
        title = escape(f"{self.title}: {WHAT}")
        drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
        head = f"<figcaption><h3>{WHAT}</h3><div>{self.legend()}</div></figcaption>"
        return f'<div class="charts"><figure class="chart">{head}{drawing}</figure></div>'

    def legend(self) -> str:
        """Each line by its colour, with what it ends at; the name where there are several."""
        said = [(f"c{i % COLOURS}", name, points[-1][1]) for i, (name, points) in enumerate(self.lines.items())]
        said += [(f"c{COLOURS - 1}", *self.level)] if self.level else []
        named = len(said) > 1
        return "".join(
            f'<span class="{colour}">{escape(name) if named else ""} <b>{percent(share)}</b></span>'
            for colour, name, share in said
        )


def height(share: float) -> float:
    """Where a share is drawn, in per cent: an interval may reach beyond what a share can be."""
    return 100 * min(max(share, 0.0), 1.0)
