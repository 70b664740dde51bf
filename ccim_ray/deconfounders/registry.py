"""The deconfounders by name: our own, and those that other installed packages bring.

A package brings one by an entry point of the group ``ccim_ray.deconfounders`` whose object is a DeconfounderCard; its
name is what ``--deconfounder`` takes. Knows no torch until one is built, so that a request can be checked at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccim_ray.deconfounders.card import CLUSTER, CONTEXT_FEATURES, DeconfounderCard
from ccim_ray.plug_ins import Cards, load_class

if TYPE_CHECKING:
    from ccim_ray.confounders import ConfounderDictionary
    from ccim_ray.deconfounders.interface import Deconfounder

_PACKAGE = "ccim_ray.deconfounders"

CARDS = {
    card.name: card
    for card in (
        DeconfounderCard(name="none", title="vanilla"),
        DeconfounderCard(name="projection", title="W_h alone"),
        DeconfounderCard(name="ccim", title="CCIM", uses_dictionary=True),
        DeconfounderCard(
            name="backdoor",
            title="back-door",
            module=f"{_PACKAGE}.backdoor:BackDoor",
            uses_dictionary=True,
            trains_with=(CLUSTER,),
        ),
        DeconfounderCard(
            name="ipw",
            title="IPW",
            module=f"{_PACKAGE}.inverse_propensity:InversePropensityWeighting",
            uses_dictionary=True,
            trains_with=(CLUSTER,),
        ),
        DeconfounderCard(
            name="logit_adjustment",
            title="logit adjustment",
            module=f"{_PACKAGE}.logit_adjustment:LogitAdjustment",
            uses_dictionary=True,
            trains_with=(CLUSTER,),
        ),
        DeconfounderCard(
            name="group_dro",
            title="GroupDRO",
            module=f"{_PACKAGE}.group_dro:GroupDRO",
            uses_dictionary=True,
            trains_with=(CLUSTER,),
        ),
        DeconfounderCard(name="clef", title="CLEF", module=f"{_PACKAGE}.clef:Clef", trains_with=(CONTEXT_FEATURES,)),
    )
}

DECONFOUNDERS = Cards(DeconfounderCard, "--deconfounder", "ccim_ray.deconfounders", CARDS)


def deconfounder_names() -> tuple[str, ...]:
    """The known deconfounders, our own first."""
    return DECONFOUNDERS.names()


def deconfounder_card(name: str) -> DeconfounderCard:
    """The card of the deconfounder called ``name``; RequestError as ``Cards.find``."""
    return DECONFOUNDERS.find(name)


def build_deconfounder(
    name: str, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
) -> Deconfounder | None:
    """The deconfounder called ``name``, not fitted; None for one that stands before the classifier, or for none.

    Args:
        loss: name of the training loss, which also says on what scale logits are.
        dictionary: None where the card needs none.
        feature_dim: D, width of the masked context features.

    Raises RequestError for an unknown name, or where the card names a class that is not there.
    """
    card = deconfounder_card(name)
    if not card.module:
        return None
    build = load_class(f"--deconfounder {name}", card.module)
    built: Deconfounder = build(num_categories, loss, dictionary, feature_dim)
    return built
