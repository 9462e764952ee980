"""What a report is made of. Evaluators fill the panels; each knows its own HTML; whatever came from data is escaped."""

import base64
import html
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from pictura.evaluation.charts import Series, chart, heat_map

THUMBNAIL = 160  # pixels on the longer side: sharp at the size shown, and a hundred of them stay under a megabyte
LONGEST_TEXT = 400  # characters shown of any one text
CONFUSED = 12  # pairs listed beside a confusion matrix
BEGIN = ("top", "R@", "mean_per_class", "accuracy", "half_width", "within_")  # metrics that are shares, by their words
SHARES = frozenset({"chance", "text", "image", "group", "dip", "fooled", "passed", "refused", "separation", "aupr"})
CLASSES_DRAWN = 40  # as many as leave room for their names


def escape(text: object, longest: int = LONGEST_TEXT) -> str:
    """Text of unknown origin, made safe between tags and in quoted attributes, and cut to `longest` characters."""
    string = str(text)
    if len(string) > longest:
        string = string[: longest - 1] + "…"
    return html.escape(string.encode("utf-8", "replace").decode())


def percent(share: float) -> str:
    """0.123 -> "12.3 %"."""
    return f"{100 * share:.1f} %"


def shown(name: str, value: float) -> str:
    """A metric as a person writes it: shares in per cent, everything else with four figures."""
    if not math.isfinite(value):
        return "not finite"
    leaf = name.rsplit("/", 1)[-1]
    if leaf in SHARES or leaf.startswith(BEGIN):
        return percent(value)
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def data_uri(image: Image.Image) -> str:
    """A picture as part of the page: PNG where it is small enough for pixels to count, JPEG else."""
    file = io.BytesIO()
    image = image.convert("RGB")
    small = max(image.size) <= 96
    if small:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=85)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Line:
    """One line under a picture: what it says, how sure, and whether it is the true one."""

    text: str
    value: str = ""
    mark: bool = False

    def html(self) -> str:
        value = f"<i>{escape(self.value)}</i>" if self.value else ""
        return f"<li{' class=true' if self.mark else ''}><bdi>{escape(self.text)}</bdi>{value}</li>"


@dataclass(frozen=True)
class Picture:
    """A thumbnail with its lines; `good` frames it (right, wrong, neither). Without an image, its lines say why."""

    image: Image.Image | None
    lines: Sequence[Line] = ()
    good: bool | None = None

    def html(self) -> str:
        alt = escape(self.lines[0].text if self.lines else "picture")
        image = '<div class="gap">no picture</div>'
        if self.image is not None:
            image = f'<img alt="{alt}" src="{data_uri(self.image)}">'
        lines = "".join(line.html() for line in self.lines)
        frame = {None: "", True: " good", False: " bad"}[self.good]
        return f'<figure class="picture{frame}">{image}<ul>{lines}</ul></figure>'


@dataclass(frozen=True)
class Panel(ABC):
    """A section of the report."""

    title: str
    note: str = field(default="", kw_only=True)

    @abstractmethod
    def html(self) -> str:
        """The section's body."""


@dataclass(frozen=True)
class Numbers(Panel):
    """Metrics as cards, one for each parent name, its first metric large: zeroshot/shape/{top1,top5} is one card."""

    values: Mapping[str, float]

    def html(self) -> str:
        cards: dict[str, list[tuple[str, float]]] = {}
        for name, value in self.values.items():
            parent, _, leaf = name.rpartition("/")
            cards.setdefault(parent or leaf, []).append((leaf, value))
        return f'<div class="cards">{"".join(self.card(parent, leaves) for parent, leaves in cards.items())}</div>'

    @staticmethod
    def card(parent: str, leaves: Sequence[tuple[str, float]]) -> str:
        (first, value), rest = leaves[0], leaves[1:]
        label = "" if first == parent else escape(first)
        others = "".join(f"<dt>{escape(leaf)}</dt><dd>{shown(leaf, v)}</dd>" for leaf, v in rest)
        title = escape(parent).replace("/", "/<wbr>").replace("_", "_<wbr>")
        headline = f"<h3>{title}</h3><p><b>{shown(first, value)}</b> {label}</p>"
        return f'<div class="card">{headline}{f"<dl>{others}</dl>" if rest else ""}</div>'


@dataclass(frozen=True)
class Curves(Panel):
    """Charts over the steps of a run: one for each name, names of one parent that are all shares drawn together."""

    series: Mapping[str, Series]

    def html(self) -> str:
        charts: dict[str, dict[str, Series]] = {}
        for name, points in self.series.items():
            parent, _, leaf = name.rpartition("/")
            share = bool(parent) and shown(name, 0.0).endswith("%")
            charts.setdefault(parent if share else name, {})[leaf if share else name] = points
        drawn = []
        for name, group in charts.items():
            lines = {escape(leaf): (points, shown(leaf, points[-1][1])) for leaf, points in group.items() if points}
            drawn.append(chart(escape(name), lines))
        return f'<div class="charts">{"".join(drawn)}</div>'


@dataclass(frozen=True)
class Confusion(Panel):
    """counts[true][predicted] as a heat map, each row relative to its class, and the pairs most often confused.

    Of many classes, the heat map shows those that have a part in the most mistakes.
    """

    counts: Sequence[Sequence[int]]
    names: Sequence[str]

    def html(self) -> str:
        totals = [sum(row) for row in self.counts]
        pairs = [(n, t, p) for t, row in enumerate(self.counts) for p, n in enumerate(row) if n and t != p]
        worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:CONFUSED]
        rows = [(self.names[t], self.names[p], n, f"{100 * n / totals[t]:.0f} %") for n, t, p in worst]
        table = Table("", ("true", "taken for", "pictures", "of its class"), rows).html()
        listed = table if rows else "<p>Nothing was confused.</p>"
        kept = self.most_confused(pairs)
        if len(kept) < len(self.names):
            listed += f"<p>Drawn: the {len(kept)} of {len(self.names)} classes with a part in the most mistakes.</p>"
        counts = [[self.counts[t][p] for p in kept] for t in kept]
        squares = heat_map(counts, [totals[t] for t in kept], [escape(self.names[t], 24) for t in kept])
        return f'<div class="confusion">{squares}<div>{listed}</div></div>'

    def most_confused(self, pairs: Sequence[tuple[int, int, int]]) -> list[int]:
        """The classes to draw, in their own order."""
        mistakes = [0] * len(self.names)
        for n, t, p in pairs:
            mistakes[t] += n
            mistakes[p] += n
        return sorted(sorted(range(len(mistakes)), key=lambda i: -mistakes[i])[:CLASSES_DRAWN])


@dataclass(frozen=True)
class Gallery(Panel):
    """Rows of pictures, each under its heading. `wide` gives every picture's lines room beside it (captions), `large`
    shows pictures of twice the size."""

    rows: Sequence[tuple[str, Sequence[Picture]]]
    wide: bool = False
    large: bool = False

    def html(self) -> str:
        parts, more = [], " wide" * self.wide + " large" * self.large
        for heading, pictures in self.rows:
            if heading:
                parts.append(f"<h3><bdi>{escape(heading)}</bdi></h3>")
            figures = "".join(picture.html() for picture in pictures)
            parts.append(f'<div class="gallery{more}">{figures}</div>')
        return "".join(parts)


@dataclass(frozen=True)
class Table(Panel):
    """Plain rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def html(self) -> str:
        if not self.rows:
            return "<p>None.</p>"
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        rows = ("".join(f"<td><bdi>{escape(cell)}</bdi></td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


@dataclass(frozen=True)
class Code(Panel):
    """Text as it is, such as a resolved configuration; folded away until asked for."""

    text: str

    def html(self) -> str:
        text = html.escape(self.text.encode("utf-8", "replace").decode())
        return f"<details><summary>{len(self.text.splitlines())} lines</summary><pre>{text}</pre></details>"
