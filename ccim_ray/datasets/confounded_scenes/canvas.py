"""Drawing in unit coordinates: x to the right, y downwards, the picture is the unit square."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ccim_ray.datasets.subject import Point

Color = tuple[int, int, int]
"""Red, green, blue, each in 0..255."""


def mix(first: Color, second: Color, share: float) -> Color:
    """The color a ``share`` of the way from ``first`` to ``second``."""
    return (
        int(first[0] + (second[0] - first[0]) * share),
        int(first[1] + (second[1] - first[1]) * share),
        int(first[2] + (second[2] - first[2]) * share),
    )


def shade(color: Color, factor: float) -> Color:
    """The color darkened (factor below 1) or brightened (above 1)."""
    return (
        min(255, int(color[0] * factor)),
        min(255, int(color[1] * factor)),
        min(255, int(color[2] * factor)),
    )


def jitter(color: Color, rng: random.Random, amount: float = 18) -> Color:
    """The color moved at random by up to ``amount`` in each channel."""
    red, green, blue = (max(0, min(255, int(value + rng.uniform(-amount, amount)))) for value in color)
    return red, green, blue


class Frame:
    """A square part of a picture with its own unit coordinates.

    The origin lies at pixel (left, top) and one unit is ``scale`` pixels. Shapes may reach beyond the unit
    square; what lies outside the picture is not drawn. Corners must be given in ascending order.
    """

    __slots__ = ("draw", "left", "scale", "top")

    def __init__(self, draw: ImageDraw.ImageDraw, left: float, top: float, scale: float) -> None:
        self.draw = draw
        self.left = left
        self.top = top
        self.scale = scale

    def at(self, x: float, y: float, scale: float) -> Frame:
        """The frame with its origin at (x, y), one of whose units is ``scale`` of this frame's."""
        return Frame(self.draw, self.left + x * self.scale, self.top + y * self.scale, scale * self.scale)

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, color: Color) -> None:
        """Fill the rectangle between two corners."""
        scale, left, top = self.scale, self.left, self.top
        self.draw.rectangle((left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale), fill=color)

    def outline(self, x1: float, y1: float, x2: float, y2: float, width: float, color: Color) -> None:
        """Draw the border of the rectangle between two corners."""
        scale, left, top = self.scale, self.left, self.top
        corners = (left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale)
        self.draw.rectangle(corners, outline=color, width=max(1, int(width * scale)))

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, color: Color) -> None:
        """Fill the upright ellipse around (x, y)."""
        scale = self.scale
        center_x, center_y = self.left + x * scale, self.top + y * scale
        half_x, half_y = radius_x * scale, radius_y * scale
        self.draw.ellipse((center_x - half_x, center_y - half_y, center_x + half_x, center_y + half_y), fill=color)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color) -> None:
        """Draw the border of the circle around (x, y)."""
        scale = self.scale
        center_x, center_y, half = self.left + x * scale, self.top + y * scale, radius * scale
        corners = (center_x - half, center_y - half, center_x + half, center_y + half)
        self.draw.ellipse(corners, outline=color, width=max(1, int(width * scale)))

    def pie(
        self,
        corners: tuple[float, float, float, float],
        start: float,
        end: float,
        color: Color,
    ) -> None:
        """Fill a slice of the ellipse in the box ``corners``; degrees go clockwise from three o'clock."""
        scale, left, top = self.scale, self.left, self.top
        x1, y1, x2, y2 = corners
        self.draw.pieslice(
            (left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale), start, end, fill=color
        )

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill the polygon through ``points``."""
        scale, left, top = self.scale, self.left, self.top
        self.draw.polygon([(left + x * scale, top + y * scale) for x, y in points], fill=color)

    def line(self, x1: float, y1: float, x2: float, y2: float, width: float, color: Color) -> None:
        """Draw a line, at least one pixel wide."""
        scale, left, top = self.scale, self.left, self.top
        corners = (left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale)
        self.draw.line(corners, fill=color, width=max(1, int(width * scale)))

    def polyline(self, points: Sequence[Point], width: float, color: Color, rounded: bool = False) -> None:
        """Draw a line through ``points``, at least one pixel wide; ``rounded`` fills the joints."""
        scale, left, top = self.scale, self.left, self.top
        pixels = [(left + x * scale, top + y * scale) for x, y in points]
        self.draw.line(pixels, fill=color, width=max(1, int(width * scale)), joint="curve" if rounded else None)


class Canvas(Frame):
    """A whole square picture of ``side`` pixels.

    Attributes:
        image: the picture, RGB.
        horizon: y at which the ground or the floor meets what stands behind it; every scene sets it.
    """

    __slots__ = ("horizon", "image")

    def __init__(self, side: int) -> None:
        self.image = Image.new("RGB", (side, side))
        self.horizon = 0.5
        super().__init__(ImageDraw.Draw(self.image), 0.0, 0.0, float(side))

    def backdrop(self, horizon: float, stops: Sequence[tuple[float, Color]]) -> None:
        """Set the horizon and fill the picture with a vertical gradient through ``stops`` (y, color)."""
        self.horizon = horizon
        side = self.image.height
        stop_rows = [y * side for y, _ in stops]
        rows = np.arange(side)
        channels = [np.interp(rows, stop_rows, [color[channel] for _, color in stops]) for channel in range(3)]
        column_H1C = np.clip(np.stack(channels, axis=1), 0, 255).astype(np.uint8)[:, None, :]
        self.image.paste(Image.fromarray(column_H1C).resize((side, side), Image.Resampling.NEAREST))
