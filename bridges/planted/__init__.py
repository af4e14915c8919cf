"""Planted worlds: models whose circuits are known, to test what claims to find them."""

from bridges.planted.language import CONTEXT, Language, PlantedBehaviour, Words
from bridges.planted.named import is_world, world_named
from bridges.planted.rotated import Rotated, random_rotation
from bridges.planted.shapes import SHAPES
from bridges.planted.world import Truth, World, plant

__all__ = [
    "CONTEXT",
    "SHAPES",
    "Language",
    "PlantedBehaviour",
    "Rotated",
    "Truth",
    "Words",
    "World",
    "is_world",
    "plant",
    "random_rotation",
    "world_named",
]
