"""Small pictures as inline SVG: curves, bars and maps, coloured by the page's style sheet.

Classes s0, s1, ... are the styles of series in style.css; beyond the last the colours start again, and
dashes and markers still tell two series apart. Text is real text; every picture has a name for those who do
not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.report.markup import Markup, join, tag

STYLES = 10  # colours of series in style.css
DASHES = (None, "7 3", "2 3", "9 3 2 3")
LEFT, TOP, WIDTH, HEIGHT = 34, 28, 250, 132  # of the field in a curve picture, user units
NAMED_STAGES = 6  # more stages than these are numbered
LABEL = 14  # height of a label on a map
FULL_WIDTH, FULL_HEIGHT = LEFT + WIDTH + 16, TOP + HEIGHT + 40


def curves(title: str, stages: Sequence[str], lines: Mapping[int, Sequence[float | None]]) -> Markup:
    """Percentages over stages, a line for each series (style number -> values); style 0 is thick."""

    def x(stage: int) -> float:
        return LEFT + 12 + stage * (WIDTH - 24) / max(len(stages) - 1, 1)

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - value / 100)

    parts = [tag("text", title, x=LEFT, y=16, class_="name")]
    for value in (0, 50, 100):
        parts.append(tag("line", x1=LEFT, x2=LEFT + WIDTH, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", value, x=LEFT - 6, y=y(value) + 4, class_="end"))
    for stage, name in enumerate(stages):
        name = _shortened(name, 36 // len(stages)) if len(stages) <= NAMED_STAGES else str(stage + 1)
        parts.append(tag("text", name, x=x(stage), y=TOP + HEIGHT + 18, class_="middle"))
    for style, values in lines.items():
        points = [(x(stage), y(value)) for stage, value in enumerate(values) if value is not None]
        parts.append(
            tag(
                "polyline",
                points=" ".join(f"{px:.1f},{py:.1f}" for px, py in points),
                class_=f"line s{style % STYLES}" + (" ours" if style == 0 else ""),
                stroke_dasharray=DASHES[style % len(DASHES)],
            )
        )
        parts += [marker(style, px, py, 3.2 if style else 4.2) for px, py in points]
    label = f"Accuracy over the stages: {title}"
    return picture(label, FULL_WIDTH, FULL_HEIGHT, parts)


def bars(title: str, values: Mapping[str, float], chance: float) -> Markup:
    """Horizontal bars of percentages, the first one strong; a dashed line at chance."""
    left, row, width = 92, 26, 180
    height = TOP + row * len(values)
    place = left + width * chance / 100
    parts = [tag("text", title, x=0, y=16, class_="name")]
    for number, (name, value) in enumerate(values.items()):
        top = TOP + row * number
        parts.append(tag("text", _shortened(name, 15), x=left - 8, y=top + 15, class_="end"))
        parts.append(tag("rect", x=left, y=top + 3, width=width, height=16, rx=3, class_="rail"))
        length = max(width * value / 100, 0)
        strength = "bar" if number else "bar first"
        parts.append(tag("rect", x=left, y=top + 3, width=f"{length:.1f}", height=16, rx=3, class_=strength))
        parts.append(tag("text", f"{value:.1f}", x=left + width + 8, y=top + 15, class_="value"))
    parts.append(tag("line", x1=place, x2=place, y1=TOP, y2=height, class_="chance"))
    return picture(title, left + width + 48, height + 6, parts)


def scatter(
    title: str,
    points: Sequence[tuple[int, float, float, bool]],
    anchors: Sequence[tuple[int, float, float, str]],
) -> Markup:
    """A map: samples as (style, x, y, routed right), anchors as (style, x, y, name); one scale for both."""
    side, margin = 268, 26
    xs = [point[1] for point in (*points, *anchors)]
    ys = [point[2] for point in (*points, *anchors)]
    reach = max(max(xs) - min(xs), max(ys) - min(ys), 1e-6)
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2

    def place(px: float, py: float) -> tuple[float, float]:
        scale = (side - 2 * margin) / reach
        return side / 2 + (px - middle_x) * scale, TOP + side / 2 - (py - middle_y) * scale

    parts = [
        tag("text", title, x=0, y=16, class_="name"),
        tag("rect", x=0.5, y=TOP + 0.5, width=side - 1, height=side - 1, rx=6, class_="frame"),
    ]
    for style, px, py, right in points:
        x, y = place(px, py)
        parts.append(marker(style, x, y, 2.6, "sample") if right else _cross(style, x, y))
    placed = [(style, *place(px, py), name) for style, px, py, name in anchors]
    parts += [marker(style, x, y, 7, "anchor") for style, x, y, _ in placed]
    below: float = TOP - LABEL  # of the label above
    for _, x, y, name in sorted(placed, key=lambda item: item[2]):
        y = below = max(y, below + LABEL)  # no label on another
        ends = "end" if x > side * 0.66 else "start"
        shift = -13 if ends == "end" else 13
        parts.append(
            tag("text", _shortened(name, 18), x=f"{x + shift:.1f}", y=f"{y + 4:.1f}", class_=f"label {ends}")
        )
    return picture(f"Map of the routing space: {title}", side, TOP + side, parts)


def legend(names: Mapping[int, str], line: bool = True) -> Markup:
    """Style number -> name, as a list with a swatch each."""
    items = []
    for style, name in names.items():
        inside = [marker(style, 14, 7, 4.2)]
        if line:
            shown = f"line s{style % STYLES}" + (" ours" if style == 0 else "")
            dashes = DASHES[style % len(DASHES)]
            inside.insert(0, tag("line", x1=0, x2=28, y1=7, y2=7, class_=shown, stroke_dasharray=dashes))
        swatch = tag("svg", *inside, viewBox="0 0 28 14", width=28, height=14, aria_hidden="true")
        items.append(tag("li", swatch, tag("span", name)))
    return tag("ul", *items, class_="legend")


def marker(style: int, x: float, y: float, size: float, kind: str = "dot") -> Markup:
    """The mark of a series: circle, square, diamond or triangle in its colour."""
    shapes: tuple[Callable[[], Markup], ...] = (
        lambda: tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=size, class_=f"{kind} s{style % STYLES}"),
        lambda: _polygon(
            style,
            kind,
            [(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)],
        ),
        lambda: _polygon(
            style,
            kind,
            [(x, y - 1.35 * size), (x + 1.35 * size, y), (x, y + 1.35 * size), (x - 1.35 * size, y)],
        ),
        lambda: _polygon(
            style, kind, [(x, y - 1.3 * size), (x + 1.25 * size, y + size), (x - 1.25 * size, y + size)]
        ),
    )
    return shapes[style % len(shapes)]()


def _polygon(style: int, kind: str, points: Sequence[tuple[float, float]]) -> Markup:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polygon", points=text, class_=f"{kind} s{style % STYLES}")


def _cross(style: int, x: float, y: float) -> Markup:
    path = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
    return tag("path", d=path, class_=f"cross s{style % STYLES}")


def picture(label: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """An SVG element with a name; it takes the width of its box up to 1.25 times its own size."""
    return tag(
        "svg",
        join(*parts),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_="picture",
        style=f"max-width:{1.25 * width:g}px",
    )


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "\u2026"
