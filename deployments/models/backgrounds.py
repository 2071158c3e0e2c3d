"""What is behind people, as colours and texture, and when that changes.

Builtin, cv2 and numpy. A background is described by a histogram over coarse, overlapping bins of Lab and one of gradient strength,
over the pixels that are no person: where in the picture they are does not matter, so people and cameras may move.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Floats = NDArray[np.float32]

SIDE = 128  # pixels a side the picture is squeezed to
BINS = (6, 8, 8)  # of lightness, a and b
TEXTURE = np.array([2, 4, 8, 16, 32, 64], np.float32)  # gradient strengths that part the bins
MARGIN = 5  # pixels around people that are left out: hair and motion blur are neither
LEAST = 0.03  # share of the picture that must be background; a face that fills it hides the setting
BLANK = 6.0  # luma levels, 1 to 99 %, below which there is no setting to see
# Hellinger distance from which on a background is another. 0 is the same, 1 nothing in common. On six real clips
# neighbours a second apart within a shot gave at most 0.32 (a tilt), over a cut 0.48-0.87; half a stop of light gives 0.2.
OTHER = 0.42


def described(picture: FrameArray, person: NDArray[np.bool_] | None) -> Floats | None:
    """(391,) float32: the square roots of both histograms, of unit length together; None where no background can be seen.

    picture: (h, w, 3) uint8 RGB. person: a mask of any size, squeezed with the picture.
    """
    import cv2

    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(luma, (1, 99))
    if high - low < BLANK:
        return None
    away = np.ones((SIDE, SIDE), bool)
    if person is not None and person.any():
        mask = cv2.resize(person.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        away = cv2.dilate(mask, np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)) == 0
    if away.mean() < LEAST:
        return None
    soft = cv2.GaussianBlur(small, (0, 0), 1.0).astype(np.float32) / 255
    lab = cv2.cvtColor(soft, cv2.COLOR_RGB2Lab)[away].astype(np.float32)
    at = np.empty_like(lab)
    at[:, 0] = lab[:, 0] / 100 * (BINS[0] - 1)
    at[:, 1:] = np.clip((np.sign(lab[:, 1:]) * np.sqrt(np.abs(lab[:, 1:]) / 90) + 1) / 2, 0, 1) * (BINS[1] - 1)
    colours = _soft_histogram(at)
    slope = cv2.magnitude(cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=0.25))
    texture = np.bincount(np.searchsorted(TEXTURE, slope[away]), minlength=len(TEXTURE) + 1).astype(np.float32)
    both = np.concatenate([0.75 * colours / colours.sum(), 0.25 * texture / texture.sum()])
    found: Floats = np.sqrt(both).astype(np.float32)
    return found


def _soft_histogram(at: Floats) -> Floats:
    """Counts over BINS, each point shared among its 8 nearest bins, so that a little more light moves little."""
    base = np.minimum(np.floor(at), np.array(BINS) - 2).astype(np.int64)
    rest = at - base
    total = np.zeros(int(np.prod(BINS)), np.float64)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, rest, 1 - rest), axis=1)
        key = np.ravel_multi_index(tuple((base + corner).T), BINS)
        total += np.bincount(key, weight, minlength=len(total))
    return total.astype(np.float32)


def distance(a: Floats, b: Floats) -> float:
    """Hellinger distance of two descriptions, 0-1."""
    return float(np.sqrt(max(0.0, 1.0 - float(a @ b))))


def changes(found: Sequence[Floats | None]) -> list[tuple[int, float]]:
    """(k, distance) for every sample k at which another background begins and stays for the next sample too.

    Each sample is compared with the mean of the last three of its stretch, so a slow pan is followed and a cut is not. Samples
    without a background are passed over. One odd sample, a flash or a hand before the lens, is no change.
    """
    seen = [(k, d) for k, d in enumerate(found) if d is not None]
    out: list[tuple[int, float]] = []
    stretch: list[Floats] = []
    for n, (k, d) in enumerate(seen):
        if stretch:
            mean = np.sqrt(np.mean(np.square(stretch[-3:]), axis=0)).astype(np.float32)
            far = distance(mean, d)
            stays = n + 1 == len(seen) or distance(d, seen[n + 1][1]) < distance(mean, seen[n + 1][1])
            if far > OTHER and stays:
                out.append((k, far))
                stretch = []
            elif far > OTHER:
                continue
        stretch.append(d)
    return out
