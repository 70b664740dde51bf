"""What do the models of one baseline know of the scene, and about whom do they differ? (Fig. 7 and 8 of the paper)

Command:   python jobs/inspect_models.py
Hardware:  two CPU cores, no GPU
Minutes:   two after `make sweep`, whose models it reads; five without
Expected:  the scene can be read from all features alike, by a linear probe with 96.8 % from vanilla's, 95.7 % from
           those of W_h alone and 95.3 % from CCIM's (chance 9.6 %): as far as CCIM's differ, its control's do too.
           Of 1040 subjects 13 are right with CCIM alone, and 14 with vanilla alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.space import Space


def inspection_space(deconfounders: Sequence[str]) -> Space:
    """One baseline with each of these deconfounders. Raises RequestError for an unknown one."""
    names = {deconfounder_card(name).title: name for name in deconfounders}
    return Space(
        name="inspection",
        question="What do the models know of the scene, and about whom do they differ?",
        changes={title: {"deconfounder": name} for title, name in names.items()},
        reference=next(iter(names)),
        axis={},
        axis_label="",
    )
