"""Words and short scenes that several English behaviours draw from: common ones, mostly one token each."""

from __future__ import annotations

from bridges.behaviours.fillers import Pools, pool

MALE = pool(
    """John Tom James Peter Mark David Paul Jack Michael Robert Henry Simon Daniel George William Richard Charles
    Steven Kevin Brian Edward Andrew Frank Adam"""
)
FEMALE = pool(
    """Mary Anna Alice Sarah Laura Emma Jane Lisa Karen Susan Julia Helen Kate Maria Rachel Amy Linda Emily Jessica
    Rebecca Nancy Carol Diana Ruth"""
)
COMMON: Pools = {
    "male": MALE,
    "female": FEMALE,
    "person": MALE + FEMALE,
    "place": pool("store park school office station beach garden library museum market hospital church"),
    "thing": pool("drink book ball letter ring key gift ticket phone bottle flower map"),
    "color": pool("red green white blue black yellow brown"),
    "job": pool("doctor teacher writer farmer lawyer singer driver painter nurse manager"),
    "mood": pool("tired happy late hungry sad ready busy lucky afraid proud"),
    "kind": pool("small green lost heavy famous new large brown strange quiet simple beautiful"),
    "city": pool("Paris London Berlin Rome Boston Chicago Dublin Madrid Vienna Moscow"),
    # Nouns whose plural is the noun and an s.
    "item": pool(
        """key book picture letter door song car house horse map window tree chair table boat hat shirt cup lamp bag
        dog ball ring ticket phone bottle flower coat"""
    ),
}

# What may stand before a frame. Most draws have something; three in eleven have nothing.
SCENES = (
    "",
    "",
    "",
    "It was a cold day. ",
    "It was late in $city. ",
    "This is a true story. ",
    "The $place was closed. ",
    "I remember it well. ",
    "The $job told me this. ",
    "It rained all week. ",
    "We were in $city then. ",
)
# Before a statement of fact or a sequence, where a story would be out of place.
LESSONS = (
    "",
    "",
    "",
    "Here is a fact. ",
    "This is easy. ",
    "Let me think. ",
    "We learned this at school. ",
    "The $job knew the answer. ",
    "I read it in the $place. ",
    "My friend $person asked me. ",
    "Everybody in $city knows it. ",
)
