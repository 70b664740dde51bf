"""The baselines by name: the paper's four, and those that other installed packages bring.

A package brings one by an entry point of the group ``ccim_ray.baselines`` whose object is a BaselineCard; its name
is what ``--baseline`` takes. Knows no torch until a baseline is built, so that a request can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.cards import CARDS
from ccim_ray.errors import RequestError
from ccim_ray.plug_ins import Cards, described, load_class

if TYPE_CHECKING:
    from torch import nn

BASELINES = Cards(BaselineCard, "--baseline", "ccim_ray.baselines", CARDS)


def baseline_names() -> tuple[str, ...]:
    """The known baselines, the paper's first."""
    return BASELINES.names()


def baseline_card(name: str) -> BaselineCard:
    """The card of the baseline called ``name``; RequestError as ``Cards.find``."""
    return BASELINES.find(name)


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
    build = load_class(f"--baseline {card.name}", card.module)
    built: nn.Module = build(feature_dims, num_categories, **checked_options(card, options or {}))
    return built
