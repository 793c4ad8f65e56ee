"""Draws boxes and arrows as SVG. Coordinates are pixels; the position of a box is its centre."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import hypot
from typing import Literal

_LINE = 17
_PADDING = 8


@dataclass(frozen=True)
class Box:
    """A box with a title and further lines below it; `kind` is its CSS class."""

    name: str
    x: float
    y: float
    title: str
    lines: tuple[str, ...] = ()
    width: float = 150
    kind: Literal["part", "end", "store", "outside"] = "part"

    @property
    def height(self) -> float:
        """The height of its text with padding."""
        return (1 + len(self.lines)) * _LINE + 2 * _PADDING


@dataclass(frozen=True)
class Arrow:
    """An arrow between two boxes, with a label on it.

    Attributes:
        bend: how far its middle is moved to the left of its direction.
        at: where on the arrow the label is, from 0 (its start) to 1.
        both_ways: whether it has a head at both ends.
    """

    start: str
    end: str
    label: tuple[str, ...] = ()
    bend: float = 0
    at: float = 0.5
    both_ways: bool = False


@dataclass(frozen=True)
class Diagram:
    """A picture, with a description in a sentence for screen readers."""

    name: str
    alternative: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def svg(self) -> str:
        """The SVG, on one line so that Markdown takes it as one block of HTML."""
        boxes = {each.name: each for each in self.boxes}
        marker = f"arrow-{self.name}"
        parts = [
            f'<svg class="diagram" role="img" viewBox="0 0 {self.width} {self.height}" '
            f'style="max-width: {self.width}px" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{escape(self.alternative)}</title>",
            f'<defs><marker id="{marker}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z"/></marker></defs>',
            *(_arrow(each, boxes[each.start], boxes[each.end], marker) for each in self.arrows),
            *(_box(each) for each in self.boxes),
            "</svg>",
        ]
        return "".join(parts)


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    texts = [f'<text class="title" x="{box.x:g}" y="{top + _PADDING + 13:g}">{escape(box.title)}</text>']
    texts += [
        f'<text x="{box.x:g}" y="{top + _PADDING + 13 + _LINE * (at + 1):g}">{escape(line)}</text>'
        for at, line in enumerate(box.lines)
    ]
    shape = f'<rect x="{left:g}" y="{top:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
    return f'<g class="box {box.kind}">{shape}{"".join(texts)}</g>'


def _arrow(arrow: Arrow, start: Box, end: Box, marker: str) -> str:
    dx, dy = end.x - start.x, end.y - start.y
    length = hypot(dx, dy)
    middle_x = (start.x + end.x) / 2 + arrow.bend * dy / length
    middle_y = (start.y + end.y) / 2 - arrow.bend * dx / length
    from_x, from_y = _border(start, middle_x, middle_y)
    to_x, to_y = _border(end, middle_x, middle_y)
    heads = f'marker-end="url(#{marker})"' + (f' marker-start="url(#{marker})"' if arrow.both_ways else "")
    path = f'<path d="M{from_x:.0f} {from_y:.0f} Q{middle_x:.0f} {middle_y:.0f} {to_x:.0f} {to_y:.0f}" {heads}/>'
    at_x = _on_curve(arrow.at, from_x, middle_x, to_x)
    at_y = _on_curve(arrow.at, from_y, middle_y, to_y) - (len(arrow.label) - 1) * _LINE / 2 + 4
    texts = [
        f'<text x="{at_x:.0f}" y="{at_y + at * _LINE:.0f}">{escape(line)}</text>' for at, line in enumerate(arrow.label)
    ]
    return f'<g class="arrow">{path}{"".join(texts)}</g>'


def _on_curve(at: float, start: float, middle: float, end: float) -> float:
    return (1 - at) ** 2 * start + 2 * at * (1 - at) * middle + at**2 * end


def _border(box: Box, x: float, y: float) -> tuple[float, float]:
    """Where the line from the centre of a box to a point leaves the box."""
    dx, dy = x - box.x, y - box.y
    scale = min(box.width / 2 / abs(dx) if dx else float("inf"), box.height / 2 / abs(dy) if dy else float("inf"))
    return box.x + dx * scale, box.y + dy * scale
