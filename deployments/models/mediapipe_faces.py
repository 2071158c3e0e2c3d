"""Faces, head pose and eyes of single pictures, with the networks that the mediapipe 0.10.14 package carries.

Sources (Google, Apache-2.0): BlazeFace (face_detector.py), face_landmark.tflite (468 points, 192 px), iris_landmark.tflite
(eyelid outline and iris of one eye, 64 px), fed the way mediapipe's own graphs feed them. They are run by LiteRT directly:
mediapipe's solutions keep a tracker between frames and start a thread pool each; here every picture stands for itself and one
thread does the work.

What the detector proposes is accepted only where the 468-point network, run twice, says that a face is there: the detector alone
gives 0.63 to an empty space suit, the second network 0.000.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray
from deployments.models.face_detector import Detector, Net, network, sigmoid
from deployments.models.face_detector import tiles as tiles
from deployments.models.face_detector_gpu import GpuDetector

Floats = NDArray[np.float64]

MESH_PX, IRIS_PX = 192, 64
PRESENT = (
    0.5,
    0.9,
)  # face presence of the first and the second mesh pass; true faces 0.99-1.00, false ones mostly < 0.65
SAME_FACE = 0.4  # shared area over the smaller box; two people's faces hardly ever cover each other by that much
MOST_FACES = 10  # candidates looked at per picture, best first: bounds the cost of crowds and textures

# Mesh points (mediapipe's canonical face): outer and inner corner of the person's right eye, which is left in the picture.
RIGHT_EYE, LEFT_EYE = (33, 133), (263, 362)
ACROSS = ((33, 263), (133, 362), (61, 291), (234, 454), (127, 356), (93, 323))  # mirror pairs, picture left to right
FOREHEAD, CHIN = 10, 152  # the line between them is vertical in the canonical face to within 1 degree

# Where an iris is, in widths of its eye, counted from the middle of the eye's corners (the mean of what both networks call
# corners: the iris network's follow the iris, the mesh's jitter). On people who look into the lens it is not 0 but this much
# further from the nose and higher (two real clips and a portrait: 0.05-0.08 and 0.03-0.07).
REST_OUT, REST_UP = 0.065, 0.06
REST_LEFT = 0.012  # and to the picture's left: mirrored copies of all three came out 2-5 degrees left too
# Sine of the gaze per eye width. By anatomy 30 mm / 12 mm = 2.5, but the networks report only about 0.55 of the way an iris
# really went (irises moved by 3 and 5 px in eyes 20 px wide came out 1.6 and 2.8 px off), so 2.5 / 0.55.
EYE_GAIN = 4.5
# Sine of the gaze per sine of the head's turn with the eyes at rest, to the side and up: the eyeball lies behind its corners,
# so in a head turned by 10 degrees the iris of someone who still looks into the lens is 0.02-0.03 off; less when nodding.
HEAD_GAIN = np.array([0.6, 0.3])


class Face(NamedTuple):
    """One face in one picture. Pixels of that picture; degrees.

    yaw: positive when turned to the picture's right edge; pitch: positive up; roll: positive clockwise in the picture.
    gaze_x, gaze_y: where the eyes point, head included; 0 is at the camera, positive to the picture's right and up.
    open_left, open_right: height over width of the eye that is left / right IN THE PICTURE; closed about 0.1, open about 0.3.
    eye_px: mean width of the two eyes, by which to tell whether gaze and openness can be trusted.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    yaw: float
    pitch: float
    roll: float
    gaze_x: float
    gaze_y: float
    open_left: float
    open_right: float
    eye_px: float


class Roi(NamedTuple):
    """A square to cut out: centre x, y and side in pixels, angle in radians clockwise."""

    x: float
    y: float
    side: float
    angle: float


class FaceFinder:
    """The three networks. Raises WeightsMissing when the mediapipe package or LiteRT is not installed."""

    def __init__(self, device: str = "cpu") -> None:
        """device: where the detector runs; the other networks run on the CPU."""
        self._detector = Detector() if device == "cpu" else GpuDetector(device)
        self.located = network("face_landmark.tflite", "face_landmark")
        self._mesh = Net(self.located)
        self._iris = Net(network("iris_landmark.tflite", "iris_landmark"))

    def detect(self, picture: FrameArray) -> list[Roi]:
        """Where faces may be in a (h, w, 3) uint8 RGB picture, best first, at most MOST_FACES."""
        return self.detect_all([picture])[0]

    def detect_all(self, pictures: Sequence[FrameArray]) -> list[list[Roi]]:
        """The same for pictures of one size in order of time."""
        return [_rois(*found) for found in self._detector.search_all(pictures)]

    def face(self, picture: FrameArray, roi: Roi) -> tuple[Face, Roi] | None:
        """The face in this place and the place fitted to it, or None when there is none."""
        first, present = self._points(picture, roi)
        if present < PRESENT[0]:
            return None
        points, present = self._points(picture, fitted(first))
        if present < PRESENT[1]:
            return None
        return self._measure(picture, points, present), fitted(points)

    def _points(self, picture: FrameArray, roi: Roi) -> tuple[Floats, float]:
        """468 points (468, 3) in pixels of the picture, depth on the same scale, and the presence of a face (0-1)."""
        crop, matrix = _cut(picture, roi, MESH_PX)
        raw, logit = self._mesh(crop)
        points = raw.reshape(468, 3).astype(np.float64)
        flat = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        return np.column_stack([flat, points[:, 2] * roi.side / MESH_PX]), float(sigmoid(logit.reshape(-1))[0])

    def _measure(self, picture: FrameArray, points: Floats, present: float) -> Face:
        right, _, ahead = axes(points)
        roll = float(np.arctan2(right[1], right[0]))
        upright = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        frontal = max(0.4, float(np.hypot(ahead[1], ahead[2])))  # cosine of the yaw: how much eyes look narrower
        shifts, widths, openness = [], [], []
        for (outer, inner), mirrored in ((RIGHT_EYE, True), (LEFT_EYE, False)):
            lids, iris = self._eye(picture, points, outer, inner, mirrored)
            width = float(np.hypot(*(lids[8] - lids[0]))) or 1.0
            middle = (lids[0] + lids[8] + points[outer, :2] + points[inner, :2]) / 4
            shift = upright @ (iris - middle) * frontal / width
            shifts.append(shift - ((REST_OUT if mirrored else -REST_OUT) - REST_LEFT, -REST_UP))
            widths.append(width)
            openness.append(float(np.hypot(*(lids[10:15] - lids[2:7]).T).mean()) * frontal / width)
        weights = np.square(widths)  # a turned head shows one eye well and the other hardly
        in_head = upright.T @ (np.array(shifts).T @ weights / weights.sum())
        aim = np.clip(EYE_GAIN * in_head + HEAD_GAIN * ahead[:2], -0.99, 0.99)
        degrees = np.degrees(
            (np.arctan2(ahead[0], -ahead[2]), np.arcsin(np.clip(-ahead[1], -1, 1)), roll, *np.arcsin((aim[0], -aim[1])))
        )
        box = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
        return Face._make([*box.tolist(), present, *degrees.tolist(), *openness, float(np.mean(widths))])

    def _eye(
        self, picture: FrameArray, points: Floats, outer: int, inner: int, mirrored: bool
    ) -> tuple[Floats, Floats]:
        """Eyelid outline (16, 2): outer corner, 7 of the lower lid, inner corner, 7 of the upper lid; and the iris (2,)."""
        x, y = (points[outer, :2] + points[inner, :2]) / 2
        side = 2.3 * float(np.hypot(*(points[outer, :2] - points[inner, :2])))
        dx, dy = points[LEFT_EYE[0], :2] - points[RIGHT_EYE[0], :2]
        crop, matrix = _cut(picture, Roi(x, y, max(side, 1.0), float(np.arctan2(dy, dx))), IRIS_PX, mirrored)
        lids, iris = self._iris(crop)  # the network knows left eyes, so right ones are shown mirrored
        both = np.concatenate([lids.reshape(71, 3)[:16, :2], iris.reshape(5, 3)[:1, :2]]).astype(np.float64)
        both = both @ matrix[:, :2].T + matrix[:, 2]
        return both[:16], both[16]


def _rois(box: Floats, pair: Floats, score: Floats) -> list[Roi]:
    """Squares around the best of the detector's proposals: boxes (n, 4), both eye centres (n, 2, 2), scores (n,)."""
    rois = []
    for k in distinct(box, score)[:MOST_FACES]:
        dx, dy = pair[k, 1] - pair[k, 0]
        x0, y0, x1, y1 = box[k]
        rois.append(Roi((x0 + x1) / 2, (y0 + y1) / 2, 1.5 * max(x1 - x0, y1 - y0), float(np.arctan2(dy, dx))))
    return rois


def distinct(boxes: Floats, scores: Floats) -> list[int]:
    """Indices of the boxes (n, 4) that are left when each face keeps its best one, best first."""
    kept: list[int] = []
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for k in np.argsort(-scores, kind="stable"):
        shared = [
            np.prod(np.clip(np.minimum(boxes[k, 2:], boxes[j, 2:]) - np.maximum(boxes[k, :2], boxes[j, :2]), 0, None))
            / max(1e-9, min(area[k], area[j]))
            for j in kept
        ]
        if area[k] > 0 and max(shared, default=0.0) <= SAME_FACE:
            kept.append(int(k))
    return kept


def between(before: Sequence[Roi], after: Sequence[Roi]) -> list[Roi]:
    """Where faces may be in the picture between two others: half way where both have one near, and wherever one has."""
    places, left = [], list(after)
    for a in before:
        near = [b for b in left if np.hypot(a.x - b.x, a.y - b.y) < min(a.side, b.side) / 3]
        if near:  # a side is 1.5 faces: a third of it is what tracks may jump in one look
            left.remove(near[0])
            half = (np.array(a) + np.array(near[0])) / 2
            places.append(Roi(float(half[0]), float(half[1]), float(half[2]), a.angle))
        else:
            places.append(a)
    return places + left


def fitted(points: Floats) -> Roi:
    """The square that mediapipe's own tracker would cut for the next frame: around all points, upright, half as large again."""
    dx, dy = points[LEFT_EYE[0], :2] - points[RIGHT_EYE[0], :2]
    angle = float(np.arctan2(dy, dx))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = points[:, :2] @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn.T @ ((low + high) / 2)
    return Roi(float(x), float(y), 1.5 * max(1.0, float((high - low).max())), angle)


def axes(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Unit vectors of the head from (468, 3) points: to the picture's right, down to the chin, ahead (out of the face)."""
    spans = np.array([points[b] - points[a] for a, b in ACROSS])
    right = (spans / np.maximum(1e-9, np.linalg.norm(spans, axis=1, keepdims=True))).mean(axis=0)
    right /= max(1e-9, float(np.linalg.norm(right)))
    down = points[CHIN] - points[FOREHEAD]
    down = down - right * (right @ down)
    down /= max(1e-9, float(np.linalg.norm(down)))
    return right, down, -np.cross(right, down)


def _cut(
    picture: FrameArray, roi: Roi, size: int, mirrored: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The (size, size, 3) float32 crop, 0-1, and the (2, 3) matrix from its pixels to the picture's."""
    import cv2

    scale = roi.side / size
    c, s = np.cos(roi.angle) * scale, np.sin(roi.angle) * scale
    turn = np.array([[-c if mirrored else c, -s], [-s if mirrored else s, c]])
    matrix = np.column_stack([turn, np.array([roi.x, roi.y]) - turn @ (size / 2, size / 2)])
    if scale > 2:  # bilinear sampling would skip pixels
        blur = int(scale) | 1
        picture = cv2.blur(picture, (blur, blur)).astype(np.uint8)
    crop = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return crop.astype(np.float32) / 255.0, matrix
