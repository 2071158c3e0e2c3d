"""The recogniser EasyOCR uses (a CRNN with CTC): which words a line of pixels says, and how surely.

Source: network (`easyocr.model.vgg_model`), character sets (`easyocr.config`) and confidence from the easyocr package;
weights english_g2.pth and its siblings (JaidedAI, Apache-2.0). EasyOCR pads all lines of a call to the widest one, and its
dynamic int8 scales with the batch, so its answer depends on what else is read. Here a line is padded to a multiple of its
own height and batched with equally wide ones, in fp32: its text is the same whatever it is read with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

HEIGHT = 64  # pixels a line is scaled to, as the network was trained
BATCH = 64
Reading = tuple[str, float, tuple[float, ...]]  # text, confidence, where each character stands as a share of the width
# A line less sure than this is read again a little blurred, then a fifth wider, and the surest reading kept. Seen on 40
# single words: character error 3.5 % to 1.5 %, readings under 0.4, which are not believed, 4 to 0.
WEAK = 0.8
LOW_CONFIDENCE = 0.1  # EasyOCR reads a line again with more contrast below this
TARGET_CONTRAST = 0.5

# easyocr.Reader picks one network for a list of languages; each of these also reads English.
LATIN = "af az bs cs cy da de en es et fr ga hr hu id is it ku la lt lv mi ms mt nl no oc pi pl pt ro rs_latin sk sl sq sv sw tl tr uz vi"
CYRILLIC = "ru rs_cyrillic be bg uk mn abq ady kbd ava dar inh che lbe lez tab tjk en"
FAMILIES: dict[str, frozenset[str]] = {
    "english_g2": frozenset({"en"}),
    "latin_g2": frozenset(LATIN.split()),
    "cyrillic_g2": frozenset(CYRILLIC.split()),
    "zh_sim_g2": frozenset({"ch_sim", "en"}),
    "japanese_g2": frozenset({"ja", "en"}),
    "korean_g2": frozenset({"ko", "en"}),
    "telugu_g2": frozenset({"te", "en"}),
    "kannada_g2": frozenset({"kn", "en"}),
}
FILES = {  # easyocr.config's file names, known here without importing torch
    **{family: f"{family}.pth" for family in FAMILIES},
    "telugu_g2": "telugu.pth",
    "kannada_g2": "kannada.pth",
}


def family_of(languages: Sequence[str]) -> str | None:
    """The smallest family that reads all the languages, or None."""
    return next((name for name, codes in FAMILIES.items() if set(languages) <= codes), None)


class Crnn:
    """One family's recogniser on one device."""

    def __init__(self, weights: Path, family: str, device: str) -> None:
        import torch
        from easyocr.config import recognition_models
        from easyocr.model.vgg_model import Model

        self.characters = "\0" + recognition_models["gen2"][family]["characters"]  # 0 is CTC's blank
        network = Model(1, 256, 256, len(self.characters))
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        self.net: Any = network.to(device).eval()
        self.device = device
        self.levels = torch.from_numpy((np.arange(256) / 127.5 - 1).astype(np.float32)).to(device)
        self.reads = 0

    def texts(self, lines: Sequence[FrameArray], gaps: Sequence[Sequence[float]]) -> list[tuple[str, float]]:
        """Text and confidence (0-1) of each line, (h, w) uint8 grey of any size.

        gaps: where one word ends and the next begins, as shares of the line's width. The network drops narrow spaces
        ("Mycat is lazy"); where it gave none at a gap, one is put there.
        """
        self.reads += len(lines)
        scaled = [_scaled(line) for line in lines]
        first = self._read(scaled)
        for below, change in ((WEAK, _softened), (WEAK, _widened), (LOW_CONFIDENCE, _contrasted)):
            weak = [k for k, reading in enumerate(first) if reading[1] < below]
            for k, again in zip(weak, self._read([change(scaled[k]) for k in weak]), strict=True):
                first[k] = max(first[k], again, key=lambda reading: reading[1])
        return [(_spaced(text, at, gaps[k]), sure) for k, (text, sure, at) in enumerate(first)]

    def _read(self, scaled: Sequence[FrameArray]) -> list[Reading]:
        import torch

        out: list[Reading] = [("", 0.0, ())] * len(scaled)
        widths: dict[int, list[int]] = {}
        for k, line in enumerate(scaled):
            widths.setdefault(math.ceil(line.shape[1] / HEIGHT) * HEIGHT, []).append(k)
        for width, members in widths.items():
            for i in range(0, len(members), BATCH):
                part = members[i : i + BATCH]
                lines = np.stack(
                    [np.pad(scaled[k], ((0, 0), (0, width - scaled[k].shape[1])), mode="edge") for k in part]
                )
                with torch.inference_mode():
                    x = self.levels[torch.from_numpy(lines).to(self.device).int()][:, None]
                    p, best = (m.cpu().numpy() for m in torch.softmax(self.net(x, None), 2).max(2))
                for k, letters, sure in zip(part, best, p, strict=True):
                    out[k] = self._decoded(letters, sure, width / scaled[k].shape[1])
        return out

    def _decoded(self, best: NDArray[np.int64], p: NDArray[np.float32], padded: float) -> Reading:
        """Greedy CTC of each step's likeliest character and its probability; confidence as EasyOCR defines it.

        padded: width over the line's.
        """
        kept = (best != 0) & np.concatenate([[True], best[1:] != best[:-1]])
        text = "".join(self.characters[i] for i in best[kept])
        letters = p[best != 0]
        sure = float(letters.prod() ** (2 / math.sqrt(len(letters)))) if len(letters) else 0.0
        at = (np.flatnonzero(kept) + 0.5) / len(best) * padded
        return text, sure, tuple(float(x) for x in at)


def _spaced(text: str, at: Sequence[float], gaps: Sequence[float]) -> str:
    """The text with a space at every gap that has none. at: where its characters stand, in the gaps' measure."""
    out = list(text)
    if 2 * len(gaps) > len(text):  # l e t t e r s set apart, not words
        return text
    for gap in sorted(gaps, reverse=True):
        k = sum(x < gap for x in at)
        around = text[k - 1 : k + 1]
        if 0 < k < len(text) and " " not in around and re.search(r"[^\W\d_]", around):  # not within 49.99
            out.insert(k, " ")
    return "".join(out)


def _scaled(line: FrameArray) -> FrameArray:
    import cv2

    h, w = line.shape
    size = (max(HEIGHT // 2, round(w * HEIGHT / h)), HEIGHT)
    return np.asarray(cv2.resize(line, size, interpolation=cv2.INTER_AREA if h > HEIGHT else cv2.INTER_CUBIC), np.uint8)


def _softened(line: FrameArray) -> FrameArray:
    import cv2

    return np.asarray(cv2.GaussianBlur(line, (0, 0), HEIGHT / 50), np.uint8)


def _widened(line: FrameArray) -> FrameArray:
    import cv2

    return np.asarray(cv2.resize(line, (round(1.2 * line.shape[1]), HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def _contrasted(line: FrameArray) -> FrameArray:
    high, low = float(np.percentile(line, 90)), float(np.percentile(line, 10))
    if (high - low) / max(10.0, high + low) >= TARGET_CONTRAST:
        return line
    stretched = np.clip((line.astype(np.float32) - low + 25) * (200 / max(10.0, high - low)), 0, 255)
    return np.asarray(stretched, np.uint8)
