"""Baselines, deconfounders and datasets by name: our own, and those that other installed packages bring."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from typing import Any, Generic, Protocol, TypeVar

from ccim_ray.errors import RequestError


class Card(Protocol):
    """What describes a baseline, a deconfounder or a dataset."""

    @property
    def name(self) -> str:
        """As the user writes it."""


NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
"""Of a card: it becomes part of folders, of MLflow's experiments and of commands."""

AnyCard = TypeVar("AnyCard", bound=Card)


@dataclass(frozen=True)
class Cards(Generic[AnyCard]):
    """All cards of one kind. A package brings one by an entry point, whose object is the card.

    Attributes:
        kind: class of the cards.
        flag: by which the user chooses one.
        group: of the entry points.
        own: ours by name; no package takes the place of one.
    """

    kind: type[AnyCard]
    flag: str
    group: str
    own: Mapping[str, AnyCard]

    def names(self) -> tuple[str, ...]:
        """The known names, our own first."""
        return (*self.own, *sorted(self._others()))

    def find(self, name: str) -> AnyCard:
        """The card called ``name``.

        Raises RequestError, naming the known ones, where there is none, or where a package's entry point is wrong.
        """
        if name in self.own:
            return self.own[name]
        found = self._others().get(name)
        if found is None:
            raise RequestError(
                f"{self.flag} {name}: there is no such {self.flag.lstrip('-')}; choose one of {', '.join(self.names())}"
            )
        return _load_card(found, self.flag, self.kind)

    def package_of(self, name: str) -> tuple[str, str] | None:
        """Name and version of the installed package that brings this card; None for our own."""
        found = None if name in self.own else self._others().get(name)
        return (found.dist.name, found.dist.version) if found and found.dist else None

    def _others(self) -> Mapping[str, EntryPoint]:
        return {name: found for name, found in _installed(self.group, tuple(sys.path)).items() if name not in self.own}


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    # Kept for as long as packages come from the same places: it reads the metadata of each, and every experiment asks.
    return {found.name: found for found in entry_points(group=group)}


def load_class(where: str, path: str) -> Any:
    """The class that a card names as "package.module:Class".

    Raises RequestError that begins with ``where``, the flag and the card's name, where it cannot be loaded.
    """
    module, _, class_name = path.partition(":")
    try:
        return getattr(import_module(module), class_name)
    except Exception as error:  # the module is another's: whatever it raises while it is imported
        raise RequestError(
            f"{where}: its class {path} cannot be loaded ({described(error, module)}); "
            "the card's module is written package.module:Class"
        ) from error


def _load_card(found: EntryPoint, flag: str, kind: type[AnyCard]) -> AnyCard:
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
    if not NAME.fullmatch(card.name):
        raise RequestError(f"{flag} {card.name}: a name has letters, digits, '-', '_' and '.' alone; {remedy}")
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
