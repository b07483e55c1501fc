"""Converts networks to OpenVINO IR: weights in half precision, or quantised to 8 bits by NNCF."""

from collections.abc import Sequence
from errno import EIO
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from yoloserve.engine.backends.openvino import entries_in
from yoloserve.errors import BackendUnsupported
from yoloserve.images.letterbox import Image
from yoloserve.model.formats import Parts
from yoloserve.settings import PrecisionName


def write_ir(
    parts: Parts, precision: PrecisionName, tensors: Sequence[Image], path: Path
) -> dict[str, str]:
    """Write `path` (.xml) and the weights beside it; return what the source says of itself.

    tensors: calibrate a quantisation. Raises `OSError` if there is no room.
    """
    network = ov.Core().read_model(parts.content, parts.weights)
    told = entries_in(network)
    if precision is PrecisionName.INT8:
        network = _quantised(network, tensors)
    try:
        ov.save_model(network, path, compress_to_fp16=precision is PrecisionName.FP16)
    except RuntimeError as error:  # OpenVINO does not tell why: "iostream error"
        raise OSError(EIO, f"{error}: perhaps the disk is full", str(path)) from error
    return told


def _quantised(network: ov.Model, tensors: Sequence[Image]) -> ov.Model:
    try:
        import nncf
    except ImportError as error:
        raise BackendUnsupported("int8 needs the package nncf: install the extra `int8`") from error
    nncf.set_log_level(40)
    planes = [
        np.ascontiguousarray(tensor[..., ::-1].transpose(2, 0, 1)[None], np.float32) / 255
        for tensor in tensors
    ]
    return nncf.quantize(
        network,
        nncf.Dataset(planes),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(planes),
        ignored_scope=nncf.IgnoredScope(names=_head(network), validate=False),
    )


def _head(network: ov.Model) -> list[str]:
    """Name what comes after the last convolutions: coordinates do not fit into 8 bits.

    The convolution that turns distributions into distances has fixed weights and one output
    channel, and belongs to it.
    """
    names: set[str] = set()
    open_nodes = [result.input_value(0).get_node() for result in network.get_results()]
    while open_nodes:
        node: Any = open_nodes.pop()
        kind, name = node.get_type_name(), node.get_friendly_name()
        if name in names or kind in ("Constant", "Parameter"):
            continue
        if kind in ("Convolution", "GroupConvolution") and _channels(node) != 1:
            continue
        names.add(name)
        open_nodes += [node.input_value(index).get_node() for index in range(node.get_input_size())]
    return sorted(names)


def _channels(convolution: Any) -> int | None:
    channels = convolution.get_output_partial_shape(0)[1]
    return channels.get_length() if channels.is_static else None
