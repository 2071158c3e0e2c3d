"""The 150 classes of ADE20K's scene parsing benchmark and what they say about a setting.

Names: objectInfo150.txt of MIT's SceneParse150 (Zhou et al., "Scene Parsing through ADE20K", 2017), the first word of each
row, in the dataset's order; SegFormer's labels are these less one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

CLASSES: tuple[str, ...] = tuple(
    """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
    seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
    counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
    screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
    stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
    chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
    escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
    swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
    microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag""".replace(
        "\n", " "
    ).split(",")
)
CLASSES = tuple(" ".join(name.split()) for name in CLASSES)
PERSON = CLASSES.index("person")

Setting = Literal[
    "bedroom", "living_room", "kitchen", "bathroom", "office", "dining_room", "bar", "shop", "stage", "vehicle_interior",
    "indoors", "street", "nature", "beach", "waterside", "sports_ground", "sky", "unknown",
]  # fmt: skip
Place = Literal["indoor", "outdoor"]

# What a class's share of the background counts towards a setting. Furniture covers little of a room and walls most of it, so
# what names a room weighs several times what every room has. The weights are reasoned from what the classes are; with the
# published network they could not be tried, as its weights could not be had.
WEIGHTS: dict[Setting, dict[str, float]] = {
    "bedroom": {"bed": 5, "pillow": 6, "blanket": 4, "cradle": 6, "wardrobe": 3, "chest of drawers": 3},
    "living_room": {
        "sofa": 5, "armchair": 4, "coffee table": 5, "fireplace": 5, "cushion": 4, "ottoman": 4, "television receiver": 3,
        "rug": 2,
    },
    "kitchen": {
        "kitchen island": 5, "stove": 6, "oven": 6, "refrigerator": 5, "dishwasher": 6, "microwave": 6, "hood": 6,
        "countertop": 5, "pot": 4, "sink": 2, "cabinet": 1.5,
    },
    "bathroom": {"toilet": 8, "bathtub": 6, "shower": 6, "sink": 4, "towel": 4, "screen door": 3, "mirror": 1.5},
    "office": {
        "desk": 5, "computer": 6, "monitor": 5, "crt screen": 5, "swivel chair": 5, "bulletin board": 4, "bookcase": 3,
        "book": 3,
    },
    "dining_room": {"table": 3, "chair": 3, "food": 4, "plate": 5, "buffet": 4, "glass": 3, "chandelier": 3},
    "bar": {"bar": 5, "stool": 4, "bottle": 4, "counter": 2, "pool table": 6, "arcade machine": 5},
    "shop": {"case": 4, "shelf": 3, "trade name": 4, "apparel": 5, "conveyer belt": 4, "escalator": 4, "basket": 3},
    "stage": {"stage": 6, "screen": 2, "canopy": 1.5},
    "vehicle_interior": {"seat": 3},
    "indoors": {
        "wall": 1, "floor": 1, "ceiling": 1, "door": 1, "windowpane": 1, "curtain": 1, "blind": 1, "painting": 1, "poster": 1,
        "lamp": 1, "light": 1, "radiator": 1, "cabinet": 1, "shelf": 1, "column": 0.8, "stairway": 1, "bannister": 1, "table": 1,
        "chair": 1, "rug": 1, "mirror": 1, "plant": 0.5, "sofa": 1, "bed": 1, "desk": 1, "clock": 1, "fan": 1, "sconce": 1, "box": 0.5,
    },
    "street": {
        "road": 1.8, "sidewalk": 2, "car": 2.5, "bus": 2.5, "truck": 2.5, "van": 2.5, "minibike": 3, "bicycle": 3,
        "traffic light": 5, "streetlight": 4, "building": 1.2, "skyscraper": 1.3, "house": 1, "awning": 2, "signboard": 1.5,
        "booth": 1.5, "pole": 1, "bridge": 1, "tower": 1,
    },
    "nature": {
        "tree": 1.2, "grass": 1.2, "plant": 1, "mountain": 1.4, "hill": 1.4, "earth": 1.1, "rock": 1.2, "field": 1.4, "land": 1.1,
        "path": 1.2, "dirt track": 1.4, "flower": 1.3, "palm": 1, "animal": 1, "waterfall": 1.2, "tent": 2,
    },
    "beach": {"sand": 2.5, "sea": 1.1, "palm": 1},
    "waterside": {
        "water": 1.4, "sea": 1.3, "river": 1.6, "lake": 1.6, "waterfall": 1.6, "swimming pool": 2, "fountain": 2, "boat": 2.5,
        "ship": 2.5, "pier": 2.5, "bridge": 1,
    },
    "sports_ground": {"grandstand": 4, "field": 1, "ball": 6},
    "sky": {"sky": 1, "airplane": 3},
}  # fmt: skip
OUTDOOR: frozenset[Setting] = frozenset({"street", "nature", "beach", "waterside", "sports_ground", "sky"})
NEITHER: frozenset[Setting] = frozenset({"stage", "unknown"})
LEAST = 0.3  # score under which nothing decides: a third of the background must say something


def setting_of(shares: Mapping[str, float]) -> Setting:
    """The setting that the background's classes fit best. shares: of the whole picture, by class; people are left out."""
    rest = {name: share for name, share in shares.items() if name != "person"}
    total = sum(rest.values())
    if total <= 0:
        return "unknown"
    scores = {s: sum(w * rest.get(name, 0.0) for name, w in weights.items()) / total for s, weights in WEIGHTS.items()}
    best = max(scores, key=lambda s: scores[s])
    return best if scores[best] >= LEAST else "unknown"


def place_of(setting: Setting) -> Place | None:
    """Indoor or outdoor, where the setting says so."""
    if setting in NEITHER:
        return None
    return "outdoor" if setting in OUTDOOR else "indoor"
