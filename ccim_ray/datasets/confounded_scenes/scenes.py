"""The 36 scenes of the embedded world: 18 outdoors, 18 indoors."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ccim_ray.datasets.confounded_scenes import scenes_nature, scenes_rooms, scenes_urban, scenes_venues
from ccim_ray.datasets.confounded_scenes.canvas import Canvas
from ccim_ray.datasets.confounded_scenes.furniture import SceneStyle

Painter = Callable[[Canvas, SceneStyle, random.Random], None]
"""Fills the canvas with one example of a scene and sets its horizon."""

SCENES: Mapping[str, Painter] = MappingProxyType(
    {
        "park": scenes_nature.paint_park,
        "beach": scenes_nature.paint_beach,
        "forest": scenes_nature.paint_forest,
        "mountain": scenes_nature.paint_mountain,
        "snowfield": scenes_nature.paint_snowfield,
        "desert": scenes_nature.paint_desert,
        "farm": scenes_nature.paint_farm,
        "harbour": scenes_nature.paint_harbour,
        "street": scenes_urban.paint_street,
        "night_alley": scenes_urban.paint_night_alley,
        "market": scenes_urban.paint_market,
        "playground": scenes_urban.paint_playground,
        "stadium": scenes_urban.paint_stadium,
        "construction_site": scenes_urban.paint_construction_site,
        "parking_garage": scenes_urban.paint_parking_garage,
        "cemetery": scenes_urban.paint_cemetery,
        "train_platform": scenes_urban.paint_train_platform,
        "ruins": scenes_urban.paint_ruins,
        "living_room": scenes_rooms.paint_living_room,
        "bedroom": scenes_rooms.paint_bedroom,
        "kitchen": scenes_rooms.paint_kitchen,
        "bathroom": scenes_rooms.paint_bathroom,
        "office": scenes_rooms.paint_office,
        "classroom": scenes_rooms.paint_classroom,
        "library": scenes_rooms.paint_library,
        "hospital_room": scenes_rooms.paint_hospital_room,
        "prison_cell": scenes_rooms.paint_prison_cell,
        "restaurant": scenes_venues.paint_restaurant,
        "nightclub": scenes_venues.paint_nightclub,
        "party_room": scenes_venues.paint_party_room,
        "church": scenes_venues.paint_church,
        "gym": scenes_venues.paint_gym,
        "museum": scenes_venues.paint_museum,
        "theatre": scenes_venues.paint_theatre,
        "supermarket": scenes_venues.paint_supermarket,
        "swimming_pool": scenes_venues.paint_swimming_pool,
    }
)
"""Painter of every scene by name."""

SCENE_NAMES: tuple[str, ...] = tuple(SCENES)
"""Names of the scenes; a scenario refers to a scene by its index here."""
