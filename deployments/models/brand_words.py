"""Brand words in lines of on-screen text, with the slips that optical reading makes. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from deployments.models.product_list import Brand
from deployments.models.text_reader import key

# One wrong, missing or added letter is forgiven from this many letters on, two from the second: in shorter words it is as often
# another word ("canyon", "milk"). Letters that OCR confuses (0 and o, 1 and l) are the same letter from the start.
SLIP_FROM = (6, 11)


class Mention(NamedTuple):
    """A brand read in a line. word: as read. slips: letters that differ. common: the word means other things too."""

    brand: Brand
    word: str
    slips: int
    common: bool


def mentions(text: str, brands: Sequence[Brand]) -> list[Mention]:
    """The brands in one line, each once, by its best reading."""
    tokens = _tokens(text)
    found = []
    for brand in brands:
        ways = [
            (slips, common, word)
            for words, common in ((brand.words, False), (brand.common, True))
            for wanted in words
            if (hit := _find(tokens, text, wanted, frozenset(map(_plain, brand.unlike)))) is not None
            for slips, word in (hit,)
        ]
        if ways:
            slips, common, word = min(ways, key=lambda w: w[:2])
            found.append(Mention(brand, word, slips, common))
    return found


def _find(tokens: list[str], text: str, wanted: str, unlike: frozenset[str]) -> tuple[int, str] | None:
    """(slips, as read) of the best place where the word or phrase stands between word boundaries."""
    parts = _tokens(wanted)
    target = key("".join(parts))
    if len(target) < 3:  # "H&M", "LG": letters alone would be found everywhere, so they must stand as they are
        exact = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE)
        return (0, exact.group()) if exact else None
    allowed = sum(len(target) >= n for n in SLIP_FROM)
    best: tuple[int, str] | None = None
    for length in {1, len(parts)}:  # "CocaCola" is one word and "Coca-Cola" two; no other words are run together
        for i in range(len(tokens) - length + 1):
            run = tokens[i : i + length]
            if " ".join(run) in unlike or key("".join(run)) == "":
                continue
            slips = distance(target, key("".join(run)), allowed)
            if slips <= allowed and (best is None or slips < best[0]):
                best = slips, " ".join(run)
    return best


@lru_cache(maxsize=4096)
def distance(a: str, b: str, most: int) -> int:
    """Letters to change, add or leave out to make b of a; most + 1 when there are more."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
        if min(row) > most:
            return most + 1
    return row[-1]


def _plain(text: str) -> str:
    """Without accents, in small letters."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def _tokens(text: str) -> list[str]:
    """Words of letters and digits: '@nike_store' is 'nike' and 'store', "L'Oréal" 'l' and 'oreal'."""
    return re.findall(r"[^\W_]+(?:[$!|][^\W_]+)*", _plain(text))
