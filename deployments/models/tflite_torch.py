"""A small TensorFlow Lite network of convolutions run by PyTorch, for a GPU, which LiteRT's Python package does not use.

Only what BlazeFace full range is made of is known; any other operation is refused at load. The weights, which the file keeps
sparse and in half precision, are read through LiteRT, which spreads them out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import AnalyzerError

BORDER = [[0, 0], [1, 1], [1, 1], [0, 0]]  # the padding that every convolution of three has
NONE, RELU = 0, 1  # of the schema's ActivationFunctionType


class TorchNet:
    """Raises AnalyzerError for a network with other operations."""

    def __init__(self, path: Path, device: str) -> None:
        from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]
        from ai_edge_litert.interpreter import (  # type: ignore[import-untyped]
            Interpreter,
            OpResolverType,
        )

        reader = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        reader.allocate_tensors()
        reader.invoke()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
        graph = model.subgraphs[0]
        names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        self._device = device
        self._input = int(graph.inputs[0])
        self._outputs = [int(i) for i in graph.outputs]
        self._steps: list[tuple[list[int], int, Callable[..., Any]]] = []
        bordered: dict[int, int] = {}  # padded tensor -> what was padded
        for operation in graph.operators:
            code = model.operatorCodes[operation.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs, output = [int(i) for i in operation.inputs], int(operation.outputs[0])
            constants = [reader.get_tensor(i) for i in inputs[1:]]
            if name in ("DENSIFY", "DEQUANTIZE"):
                continue
            if name == "PAD" and constants[0].tolist() == BORDER:
                bordered[output] = inputs[0]
                continue
            step = self._step(name, operation.builtinOptions, constants, inputs[0] in bordered)
            if step is None:
                raise AnalyzerError(f"{path.name} has an operation ({name}) that tflite_torch.py does not know.")
            sources = inputs if name == "ADD" else [bordered.get(inputs[0], inputs[0])]
            self._steps.append((sources, output, step))

    def __call__(self, pictures: Any) -> list[Any]:
        """A (n, 3, h, w) float32 tensor on the device to the outputs, each (n, places, values), the most values first."""
        import torch

        tensors = {self._input: pictures}
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for sources, output, step in self._steps:
                tensors[output] = step(*(tensors[i] for i in sources))
        return sorted((tensors[i] for i in self._outputs), key=lambda t: -int(t.shape[-1]))

    def _step(self, name: str, options: Any, constants: list[Any], border: bool) -> Callable[..., Any] | None:
        """One operation on (n, channels, h, w) tensors; None for one that is not known."""
        import torch
        from torch.nn import functional

        active = getattr(options, "fusedActivationFunction", NONE)
        act: Callable[[Any], Any] = functional.relu if active == RELU else lambda x: x
        if active not in (NONE, RELU):
            return None
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weights, bias = (torch.from_numpy(np.array(c, np.float32)) for c in constants)
            single = name == "DEPTHWISE_CONV_2D"
            weights = weights.permute((3, 0, 1, 2) if single else (0, 3, 1, 2)).contiguous().to(self._device)
            if weights.shape[-1] != (3 if border else 1):
                return None
            bias, groups = bias.to(self._device), len(weights) if single else 1
            return lambda x: act(functional.conv2d(x, weights, bias, options.strideW, int(border), 1, groups))
        if name == "ADD":
            return lambda x, y: act(x + y)
        if name == "RESIZE_BILINEAR" and options.halfPixelCenters:
            size = constants[0].tolist()
            return lambda x: functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        if name == "DEPTH_TO_SPACE":
            return lambda x: _spread(x, options.blockSize)
        if name == "RESHAPE":
            return lambda x: x.permute(0, 2, 3, 1).flatten(1, 2)
        return None


def _spread(x: Any, block: int) -> Any:
    """TensorFlow's depth_to_space, which takes the place in the block from the channel's high digits (torch: the low ones)."""
    n, channels, h, w = x.shape
    depth = channels // block**2
    parts = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, depth, h * block, w * block)
