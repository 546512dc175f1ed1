"""ONNX: a graph from rows to clusters, distances and probabilities.

    rows (batch, D) float32
    -> cluster (batch,) int64, distance (batch,) float32, probabilities (batch, K) float32

The graph is that of ``dinkcli.nearest.index``: rows (scaled to norm 1 first under cosine) are
shifted to the mean of the centres, scored by one matrix product, and an exact tie goes to the
lowest index.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dinkcli import __version__
from dinkcli.data.extras import require
from dinkcli.errors import OutputError
from dinkcli.models.model import Model

_OPSET = 18
_IR_VERSION = 8
_MOST_BYTES = 1 << 31  # of one protobuf message


def write(model: Model, path: str) -> None:
    """Writes the graph, checked by onnx."""
    onnx = require("onnx", "onnx", "ONNX export")
    if model.cluster_centers.nbytes + (1 << 20) > _MOST_BYTES:
        raise OutputError(
            f"ONNX files hold less than 2 GiB, the centres take {model.cluster_centers.nbytes} "
            "bytes; export to pt2 or safetensors"
        )
    made = onnx.helper.make_model(
        _graph(model, onnx),
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="dink",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(
        made, {"metric": model.metric, "dink.fingerprint": model.fingerprint}
    )
    onnx.checker.check_model(made)
    with open(path, "wb") as file:
        file.write(made.SerializeToString())


def _graph(model: Model, onnx: Any) -> Any:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes = []
    rows = "rows"
    if model.metric == "cosine":
        nodes += [
            node("ReduceL2", [rows, "features_axis"], ["norm"], keepdims=1),
            node("Max", ["norm", "smallest_norm"], ["safe_norm"]),
            node("Div", [rows, "safe_norm"], ["directions"]),
        ]
        rows = "directions"
    if model.maps:
        nodes += [
            node("Sub", [rows, "origin"], ["around"]),
            node("MatMul", ["around", "map"], ["mapped"]),
        ]
        rows = "mapped"
    nodes += [
        node("Sub", [rows, "shift"], ["shifted"]),
        node("Gemm", ["shifted", "centers", "half_norms"], ["scores"], alpha=-1.0, transB=1),
        node("ArgMin", ["scores"], ["cluster"], axis=1, keepdims=0),
        node("Mul", ["scores", "two"], ["doubled"]),
        node("ReduceSumSquare", ["shifted", "features_axis"], ["row_norms"], keepdims=1),
        node("Add", ["doubled", "row_norms"], ["squared"]),
        node("Max", ["squared", "zero"], ["not_negative"]),
        node("Sqrt", ["not_negative"], ["distances"]),
        node("ReduceMin", ["distances", "features_axis"], ["distance"], keepdims=0),
        # Away from the best first: its score may be large beside the temperature.
        node("ReduceMin", ["scores", "features_axis"], ["best"], keepdims=1),
        node("Sub", ["scores", "best"], ["worse"]),
        node("Mul", ["worse", "sharpness"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return onnx.helper.make_graph(
        nodes,
        "dink",
        inputs=[value("rows", float32, ["batch", model.n_features])],
        outputs=[
            value("cluster", int64, ["batch"]),
            value("distance", float32, ["batch"]),
            value("probabilities", float32, ["batch", model.n_clusters]),
        ],
        initializer=[
            onnx.numpy_helper.from_array(array, name) for name, array in _constants(model).items()
        ],
    )


def _constants(model: Model) -> dict[str, np.ndarray]:
    centers = model.cluster_centers.astype(np.float64)
    shift = centers.mean(0).astype(np.float32)
    shifted = (centers - shift).astype(np.float32)
    constants = {
        "shift": shift,
        "centers": shifted,
        "half_norms": ((shifted.astype(np.float64) ** 2).sum(1) / 2).astype(np.float32),
        "features_axis": np.array([1], np.int64),
        "two": np.float32(2),
        "sharpness": np.float32(-2 / max(model.temperature, 1e-30)),
        "zero": np.float32(0),
    }
    if model.metric == "cosine":
        constants["smallest_norm"] = np.float32(1e-12)
    return {name: np.asarray(array) for name, array in (constants | model.maps).items()}
