"""The products and brands that are looked for, when the operator gives no list: a table, and how a YAML file says the same.

    products:
      - {name: lipstick, labels: [toothbrush, bottle]}        # what else the detector's classes may turn out to be
    brands:
      - {name: Nivea, kind: skin care, labels: [bottle], words: [nivea], unlike: []}
      - {name: Dove, kind: skin care, labels: [bottle], common: [dove]}

labels: COCO classes. words: what stands on the screen; several words of one brand are alternatives. A word that means other
things too (`common`) counts only on a product of these labels. unlike: other words that look like a misread brand.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from deployments.errors import AnalyzerError
from deployments.media import Model
from deployments.models.detections import COCO


def _known(labels: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(labels) - set(COCO))
    if unknown:
        raise ValueError(f"{unknown} are no classes of COCO; they are: {', '.join(COCO)}")
    return labels


class ProductKind(Model):
    name: str = Field(description="as in 'a photo of a ...'")
    labels: tuple[str, ...] = Field(min_length=1, description="COCO classes under which a detector finds it")

    _labels = field_validator("labels")(_known)


class Brand(Model):
    name: str
    kind: str = Field(description="what it sells: the product's name when only the word is seen")
    labels: tuple[str, ...] = Field((), description="COCO classes of what it sells")
    words: tuple[str, ...] = Field((), description="as written on the screen, in any case")
    common: tuple[str, ...] = Field((), description="words that mean other things too")
    unlike: tuple[str, ...] = Field((), description="words that are no misreading of this brand")

    _labels = field_validator("labels")(_known)


class ProductList(Model):
    products: tuple[ProductKind, ...] = ()
    brands: tuple[Brand, ...] = ()

    def labels(self) -> tuple[str, ...]:
        """COCO classes that are candidates."""
        return tuple(dict.fromkeys(label for labels in self._each() for label in labels))

    def _each(self) -> list[tuple[str, ...]]:
        return [p.labels for p in self.products] + [b.labels for b in self.brands]


def product_list(path: str) -> ProductList:
    """The operator's list, or the built-in one for an empty path. Raises AnalyzerError."""
    if not path:
        return DEFAULT
    import yaml

    try:
        return ProductList.model_validate(yaml.safe_load(Path(path).expanduser().read_text()))
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise AnalyzerError(
            f"args.settings.product_detection.products: {path} is no list of products: {error}"
        ) from error


# What a shop sells under a brand, among COCO's classes. Left out: people, animals and plants; street furniture, buses, trains, trucks, boats and
# aeroplanes, which are the street and not the offer; tables, chairs, beds, sinks, plates and cutlery, which are the room (chairs would
# be the commonest product of all clips); raw fruit and vegetables, which have no brand to tell.
_PRODUCTS = {
    "smartphone": "cell_phone", "tablet computer": "cell_phone laptop tv", "game controller": "remote",
    "remote control": "remote", "laptop": "laptop", "television": "tv", "computer monitor": "tv", "computer mouse": "mouse",
    "computer keyboard": "keyboard", "wristwatch": "clock", "clock": "clock", "pair of headphones": "mouse",
    "water bottle": "bottle", "soft drink bottle": "bottle", "wine bottle": "bottle", "beer bottle": "bottle",
    "perfume bottle": "bottle vase", "shampoo bottle": "bottle", "lotion bottle": "bottle", "sauce bottle": "bottle",
    "pill bottle": "bottle", "drink can": "cup bottle", "takeaway coffee cup": "cup", "mug": "cup", "glass of wine": "wine_glass",
    "handbag": "handbag", "tote bag": "handbag", "shopping bag": "handbag", "backpack": "backpack", "suitcase": "suitcase",
    "umbrella": "umbrella", "necktie": "tie", "book": "book", "cosmetics box": "book", "car": "car", "sports car": "car",
    "SUV": "car", "pickup truck": "car", "motorcycle": "motorcycle", "motor scooter": "motorcycle", "bicycle": "bicycle",
    "electric scooter": "bicycle skateboard", "skateboard": "skateboard", "surfboard": "surfboard", "snowboard": "snowboard",
    "pair of skis": "skis", "tennis racket": "tennis_racket", "football": "sports_ball", "basketball": "sports_ball",
    "tennis ball": "sports_ball", "baseball glove": "baseball_glove", "baseball bat": "baseball_bat", "frisbee": "frisbee",
    "stuffed toy": "teddy_bear", "hair dryer": "hair_drier", "toothbrush": "toothbrush", "electric toothbrush": "toothbrush",
    "make-up brush": "toothbrush", "pizza": "pizza", "donut": "donut", "cake": "cake", "sandwich": "sandwich",
    "hamburger": "sandwich", "hot dog": "hot_dog", "microwave oven": "microwave", "oven": "oven", "toaster": "toaster",
    "refrigerator": "refrigerator", "pair of scissors": "scissors",
}  # fmt: skip

_DRINK, _CARE, _BAG = "bottle cup", "bottle", "handbag backpack suitcase"
_PHONE, _HOME, _SPORT = "cell_phone laptop tv", "tv refrigerator microwave oven", "sports_ball backpack"
# name: (kind, labels, words with a "!" after common ones, words that are unlike)
_BRANDS = {
    "Apple": ("electronics", _PHONE, "iphone,ipad,macbook,airpods,apple watch,apple!", ""),
    "Samsung": ("electronics", f"{_PHONE} {_HOME}", "samsung,galaxy s24,galaxy s25", ""),
    "Google": ("electronics", "cell_phone laptop", "google,google pixel", "goggle,goggles"),
    "Huawei": ("electronics", "cell_phone laptop", "huawei", ""), "Xiaomi": ("electronics", "cell_phone", "xiaomi", ""),
    "OnePlus": ("electronics", "cell_phone", "oneplus", ""), "Sony": ("electronics", "tv remote", "sony,playstation", ""),
    "LG": ("electronics", _HOME, "lg", ""), "Microsoft": ("electronics", "laptop remote", "microsoft,xbox", ""),
    "Nintendo": ("electronics", "remote", "nintendo", ""), "Dell": ("electronics", "laptop", "dell", ""),
    "Lenovo": ("electronics", "laptop", "lenovo,thinkpad", ""), "Asus": ("electronics", "laptop", "asus", ""),
    "Acer": ("electronics", "laptop", "acer", ""), "HP": ("electronics", "laptop", "hp!", ""),
    "Logitech": ("electronics", "mouse keyboard", "logitech", ""), "Canon": ("cameras", "", "canon", ""),
    "Nikon": ("cameras", "", "nikon", ""), "GoPro": ("cameras", "", "gopro", ""), "Philips": ("electronics", "tv toothbrush", "philips", "phillips"),
    "Dyson": ("household appliances", "hair_drier", "dyson", ""), "Bosch": ("household appliances", _HOME, "bosch", ""),
    "Whirlpool": ("household appliances", _HOME, "whirlpool!", ""), "Oral-B": ("oral care", "toothbrush", "oral b", ""),
    "Coca-Cola": ("soft drinks", _DRINK, "coca cola,coke zero,diet coke", ""), "Pepsi": ("soft drinks", _DRINK, "pepsi", ""),
    "Fanta": ("soft drinks", _DRINK, "fanta", ""), "Sprite": ("soft drinks", _DRINK, "sprite!", ""),
    "Red Bull": ("energy drinks", _DRINK, "red bull", ""), "Monster Energy": ("energy drinks", _DRINK, "monster energy", ""),
    "Heineken": ("beer", f"{_DRINK} wine_glass", "heineken", ""), "Budweiser": ("beer", f"{_DRINK} wine_glass", "budweiser", ""),
    "Corona": ("beer", f"{_DRINK} wine_glass", "corona extra,corona!", ""), "Evian": ("water", _DRINK, "evian", ""),
    "Nescafé": ("coffee", _DRINK, "nescafe", ""), "Nespresso": ("coffee", _DRINK, "nespresso", "espresso"),
    "Starbucks": ("coffee", "cup", "starbucks", ""), "Dunkin'": ("coffee", "cup donut", "dunkin", "dunking"),
    "McDonald's": ("fast food", "cup sandwich", "mcdonalds,mcdonald s", "mcdonald"), "Burger King": ("fast food", "cup sandwich", "burger king", ""),
    "KFC": ("fast food", "cup sandwich", "kfc", ""), "Subway": ("fast food", "cup sandwich", "subway!", ""),
    "Domino's": ("fast food", "pizza", "dominos,domino s", ""), "Pizza Hut": ("fast food", "pizza", "pizza hut", ""),
    "Heinz": ("food", "bottle", "heinz", ""), "Nestlé": ("food", "", "nestle", "nestled,nestles,nettle"), "Nutella": ("food", "bottle", "nutella", ""),
    "Kellogg's": ("food", "book", "kelloggs,kellogg s", ""), "Oreo": ("food", "", "oreo", ""), "Nivea": ("skin care", _CARE, "nivea", ""),
    "Dove": ("skin care", _CARE, "dove!", ""), "L'Oréal": ("cosmetics", _CARE, "l'oreal", ""), "Garnier": ("cosmetics", _CARE, "garnier", ""),
    "Maybelline": ("cosmetics", _CARE, "maybelline", ""), "Sephora": ("cosmetics", _CARE, "sephora", ""), "CeraVe": ("skin care", _CARE, "cerave", ""),
    "Colgate": ("oral care", "toothbrush", "colgate", ""), "Nike": ("sportswear", _SPORT, "nike", ""), "Adidas": ("sportswear", _SPORT, "adidas", ""),
    "Puma": ("sportswear", _SPORT, "puma!", ""), "Reebok": ("sportswear", _SPORT, "reebok", ""), "New Balance": ("sportswear", _SPORT, "new balance!", ""),
    "Under Armour": ("sportswear", _SPORT, "under armour", "under armor"), "Wilson": ("sports goods", "sports_ball tennis_racket baseball_glove", "wilson!", ""),
    "Gucci": ("fashion", _BAG, "gucci", ""), "Chanel": ("fashion", f"{_BAG} bottle", "chanel", "channel,channels,chapel"),
    "Louis Vuitton": ("fashion", _BAG, "louis vuitton", ""), "Prada": ("fashion", _BAG, "prada", ""), "Dior": ("fashion", f"{_BAG} bottle", "dior", ""),
    "Hermès": ("fashion", _BAG, "hermes", ""), "Zara": ("fashion", _BAG, "zara", ""), "H&M": ("fashion", _BAG, "h&m", ""),
    "Rolex": ("watches", "clock", "rolex", ""), "Casio": ("watches", "clock", "casio", ""), "Ikea": ("furniture", "", "ikea", ""),
    "Lego": ("toys", "", "lego", ""), "Amazon": ("online shop", "", "amazon!", ""), "Toyota": ("cars", "car", "toyota", ""),
    "Honda": ("cars", "car motorcycle", "honda", ""), "Ford": ("cars", "car", "ford!", ""), "BMW": ("cars", "car motorcycle", "bmw", ""),
    "Mercedes-Benz": ("cars", "car", "mercedes,mercedes benz", ""), "Audi": ("cars", "car", "audi", ""), "Volkswagen": ("cars", "car", "volkswagen", ""),
    "Tesla": ("cars", "car", "tesla", ""), "Hyundai": ("cars", "car", "hyundai", ""), "Ferrari": ("cars", "car", "ferrari", ""),
    "Porsche": ("cars", "car", "porsche", "porches"), "Yamaha": ("motorcycles", "motorcycle", "yamaha", ""), "Harley-Davidson": ("motorcycles", "motorcycle", "harley davidson", ""),
}  # fmt: skip


def _labels(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label.replace("_", " ") for label in text.split()))


DEFAULT = ProductList(
    products=tuple(ProductKind(name=name, labels=_labels(labels)) for name, labels in _PRODUCTS.items()),
    brands=tuple(
        Brand(
            name=name, kind=kind, labels=_labels(labels), words=tuple(w for w in words.split(",") if w[-1] != "!"),
            common=tuple(w[:-1] for w in words.split(",") if w[-1] == "!"), unlike=tuple(w for w in unlike.split(",") if w),
        )
        for name, (kind, labels, words, unlike) in _BRANDS.items()
    ),
)  # fmt: skip
