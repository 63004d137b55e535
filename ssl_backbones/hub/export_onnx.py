"""A backbone as ONNX: images (B, 3, H, W) in, embeddings (B, C) out, of any number of images."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_backbones.hub.export import preparation
from ssl_backbones.hub.sidecar import Exported, ExportError


def as_onnx(model: nn.Module, file: Path, architecture: str) -> Exported:
    """One file, weights included, with the preparation of images in its metadata too."""
    prepared = preparation(model)
    program = _traced(model.eval(), torch.zeros(2, *prepared["input_size"]))
    program.model.metadata_props.update({name: json.dumps(value) for name, value in prepared.items()})
    proto = program.model_proto
    for part in (proto.graph, *proto.functions):
        for node in part.node:
            del node.metadata_props[:]  # torch's trace of the code, with the paths of this machine
    content: bytes = proto.SerializeToString()
    return Exported(content, {"format": "onnx", "input": "images", "output": "embedding"})


def _traced(model: nn.Module, images: torch.Tensor) -> Any:
    """The network as torch.onnx has it, or ExportError where that cannot be had."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError("ONNX needs two more packages: pip install 'ssl-backbones[onnx]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it deprecates in itself
        return torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=["embedding"],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
