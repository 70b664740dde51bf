"""Charts written as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ccim_ray.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure, atomically, with its words as they are: a name with dollar signs is no formula.

    The only formulas are powers at the ticks of an axis, which matplotlib itself writes, most of them while it draws.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text) and "$" in text.get_text() and "\\mathdefault{" not in text.get_text():
            text.set_parse_math(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
