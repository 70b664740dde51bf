"""Cards that other installed packages bring by entry points."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points
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

    Raises RequestError, with the flag that asked for it, where its module or object is missing, or it is another thing.
    """
    where = f"{flag} {found.name}: the entry point {found.value}"
    try:
        card = found.load()
    except (ImportError, AttributeError) as error:
        raise RequestError(f"{where} cannot be loaded ({error}); install or mend the package that brings it") from error
    if not isinstance(card, kind) or card.name != found.name:
        raise RequestError(f"{where} is no {kind.__name__} of that name; mend the package that brings it")
    return card
