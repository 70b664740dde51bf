"""Cards that other installed packages bring by entry points."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from typing import Protocol, TypeVar

from ccim_ray.errors import RequestError


class Card(Protocol):
    """What describes a baseline or a dataset."""

    @property
    def name(self) -> str:
        """As the user writes it."""


AnyCard = TypeVar("AnyCard", bound=Card)


def plugged_in(group: str, own: Container[str]) -> dict[str, EntryPoint]:
    """Entry points of the group by name, but those that are named as one of our own."""
    return {found.name: found for found in entry_points(group=group) if found.name not in own}


def load_card(found: EntryPoint, flag: str, kind: type[AnyCard]) -> AnyCard:
    """The card that an entry point names.

    Raises RequestError, with the flag that asked for it, where its module cannot be imported, its object is missing or
    another thing, or the card has another name.
    """
    where = f"{flag} {found.name}: the entry point {found.value}"
    remedy = "mend the package that brings it"
    try:
        card = found.load()
    except Exception as error:  # the module is another's: whatever it raises while it is imported
        reason = described(error, found.module)
        raise RequestError(f"{where} cannot be loaded ({reason}); install it anew, or {remedy}") from error
    if not isinstance(card, kind):
        thing = f"the class {card.__name__}" if isinstance(card, type) else f"of class {type(card).__name__}"
        raise RequestError(f"{where} is {thing}, not a {kind.__name__}; {remedy}")
    if card.name != found.name:
        raise RequestError(f"{where} is a {kind.__name__} of the name {card.name!r}; give both one name")
    return card


def described(error: Exception, module: str) -> str:
    """Kind and message of an error that a plug-in's code raised, and the last of its lines that was running.

    Args:
        error: as it was caught.
        module: of the plug-in, "package.module" or "package.module:Class".
    """
    package = module.partition(":")[0].partition(".")[0]
    frames = walk_tb(error.__traceback__)
    own = [(frame, line) for frame, line in frames if frame.f_globals.get("__name__", "").partition(".")[0] == package]
    place = f", {Path(own[-1][0].f_code.co_filename).name} line {own[-1][1]}" if own else ""
    return f"{type(error).__name__}: {error}{place}"
