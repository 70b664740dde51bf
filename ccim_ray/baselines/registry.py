"""The baselines by name: the paper's four, and those that other installed packages bring.

A package brings one by an entry point of the group ``ccim_ray.baselines`` whose object is a BaselineCard; its name
is what ``--baseline`` takes. Knows no torch until a baseline is built, so that a request can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.cards import CARDS
from ccim_ray.errors import RequestError
from ccim_ray.plug_ins import described, load_card, plugged_in

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "ccim_ray.baselines"


def baseline_names() -> tuple[str, ...]:
    """The known baselines, the paper's first."""
    return (*CARDS, *sorted(plugged_in(ENTRY_POINT_GROUP, CARDS)))


def baseline_card(name: str) -> BaselineCard:
    """The card of the baseline called ``name``.

    Raises RequestError, naming the known ones, where there is none, or where a package's entry point is wrong.
    """
    if name in CARDS:
        return CARDS[name]
    found = plugged_in(ENTRY_POINT_GROUP, CARDS).get(name)
    if found is None:
        raise RequestError(f"--baseline {name}: there is no such baseline; choose one of {', '.join(baseline_names())}")
    return load_card(found, "--baseline", BaselineCard)


def baseline_label(name: str) -> str:
    """The name as tables show it: one that is not built as published says so wherever its numbers stand."""
    return f"{name} (approximate)" if baseline_card(name).approximate else name


def inputs_of(name: str, options: Mapping[str, Any]) -> tuple[Input, ...]:
    """What the baseline reads with these options. RequestError for an unknown baseline, option or value."""
    return inputs_from_card(baseline_card(name), options)


def inputs_from_card(card: BaselineCard, options: Mapping[str, Any]) -> tuple[Input, ...]:
    """What a baseline of this card reads; RequestError as ``inputs_of``, and where the card names what is not there."""
    chosen = checked_options(card, options)
    try:
        inputs = tuple(card.inputs(chosen))
    except RequestError:  # says itself which option has a wrong value
        raise
    except Exception as error:  # the function is another's
        raise RequestError(f"--baseline {card.name}: its inputs: {described(error, card.module)}") from error
    if not inputs or not all(isinstance(item, Input) for item in inputs):
        raise RequestError(f"--baseline {card.name}: its card's inputs gave {inputs}; give a tuple of one Input a view")
    views = [item.view for item in inputs]
    if len(set(views)) < len(views):
        raise RequestError(f"--baseline {card.name}: its inputs name a view twice: {', '.join(views)}")
    return inputs


def checked_options(card: BaselineCard, options: Mapping[str, Any]) -> dict[str, Any]:
    """The card's options with those given. RequestError for one that it does not have."""
    unknown = [key for key in options if key not in card.options]
    if unknown:
        known = ", ".join(card.options) or "none"
        raise RequestError(f"--baseline {card.name} has no option {unknown[0]!r}; its options: {known}")
    return {**card.options, **options}


def build_baseline(
    name: str, feature_dims: Mapping[str, int], num_categories: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """The untrained baseline called ``name``, with ``joint_dim``, for features of ``feature_dims[view]`` dimensions.

    Weights are drawn from torch's global generator. Raises RequestError for an unknown name or option, or where the
    card names a class that is not there.
    """
    return build_from_card(baseline_card(name), feature_dims, num_categories, options)


def build_from_card(
    card: BaselineCard, feature_dims: Mapping[str, int], num_categories: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """The untrained baseline that the card describes; as ``build_baseline``."""
    module, _, class_name = card.module.partition(":")
    try:
        build = getattr(import_module(module), class_name)
    except Exception as error:  # the module is another's
        raise RequestError(
            f"--baseline {card.name}: its class {card.module} cannot be loaded ({described(error, module)}); "
            "the card's module is written package.module:Class"
        ) from error
    built: nn.Module = build(feature_dims, num_categories, **checked_options(card, options or {}))
    return built
