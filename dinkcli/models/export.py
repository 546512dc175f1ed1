"""A model in the formats of other tools. What computes labels by itself (onnx, pt2, faiss, sklearn)
takes rows as they are: what the metric does to them first is inside.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from dinkcli import __version__
from dinkcli.data.atomic import atomic_path, by_suffix
from dinkcli.data.machine import require
from dinkcli.errors import OutputError, UsageError
from dinkcli.models.file import as_model
from dinkcli.models.model import Model

_OPSET, _IR_VERSION = 18, 8
_MOST_BYTES = 1 << 31  # of one protobuf message


def _npy(model: Model, path: str) -> None:
    with open(path, "wb") as file:
        np.save(file, _tensors(model)["cluster_centers"], allow_pickle=False)


def _parquet(model: Model, path: str) -> None:
    rows = _tensors(model)["cluster_centers"]
    value = pa.field("element", pa.from_numpy_dtype(rows.dtype), nullable=False)
    vector = pa.list_(value, model.n_features)
    centers = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=vector)
    kinds = {"cluster": pa.int32(), "center": vector}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    clusters = pa.array(model.center_clusters, pa.int32())
    table = pa.Table.from_arrays([clusters, centers], schema=schema)
    pq.write_table(table, path, use_dictionary=False)


def _csv(model: Model, path: str) -> None:
    names = ["cluster", *(f"dim_{d}" for d in range(model.n_features))]
    columns = map(pa.array, (model.center_clusters, *_tensors(model)["cluster_centers"].T))
    pyarrow.csv.write_csv(pa.table(list(columns), names), path)


def _json(model: Model, path: str) -> None:
    names = ("n_clusters", "n_features", "metric", "fingerprint")
    document = {name: getattr(model, name) for name in names}
    if model.parts is not None:
        document["center_clusters"] = model.center_clusters.tolist()
    document |= {name: values.astype(float).tolist() for name, values in _tensors(model).items()}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, allow_nan=False)
        file.write("\n")


def _safetensors(model: Model, path: str) -> None:
    """The head's state dict alone: loads into any module with a ``cluster_centers`` parameter."""
    save_file(_tensors(model), path)


def _tensors(model: Model) -> dict[str, np.ndarray]:
    """Centres (C, D), with the map of the rows if there is one; float64 with an offset."""
    tensors = {"cluster_centers": model.centers, **model.maps}
    if model.offset is not None:
        moved = "origin" if model.maps else "cluster_centers"
        tensors[moved] = tensors[moved] + model.offset
    return tensors


def _onnx(model: Model, path: str) -> None:
    """A graph from rows (batch, D) float32, or float64 with an offset, to cluster (batch,) int64,
    distance (batch,) float32 and probabilities (batch, K) float32: as in ``dinkcli.nearest.index``,
    rows are shifted to the mean of the centres and scored by one product, and an exact tie goes to
    the lowest index."""
    onnx = require("onnx", "onnx", "ONNX export")
    if model.centers.nbytes + (1 << 20) > _MOST_BYTES:
        raise OutputError(
            f"ONNX files hold less than 2 GiB, the centres take {model.centers.nbytes} "
            "bytes; export to pt2 or safetensors"
        )
    steps, rows, kind = [], "rows", "float"
    if model.offset is not None:
        steps += ["apart = Sub (rows, offset)", "near = Cast <to = 1> (apart)"]
        rows, kind = "near", "double"
    if model.metric == "cosine":
        steps.append(f"norm = ReduceL2 <keepdims = 1> ({rows}, features_axis)")
        steps.append("safe_norm = Max (norm, smallest_norm)")
        steps.append(f"directions = Div ({rows}, safe_norm)")
        rows = "directions"
    if model.maps:
        steps += [f"around = Sub ({rows}, origin)", "mapped = MatMul (around, map)"]
        rows = "mapped"
    # Without parts a centre is a cluster.
    center, shares = ("center", "shares") if model.parts else ("cluster", "probabilities")
    steps += [
        f"shifted = Sub ({rows}, shift)",
        "scores = Gemm <alpha = -1.0, transB = 1> (shifted, centers, half_norms)",
        f"{center} = ArgMin <axis = 1, keepdims = 0> (scores)",
        "doubled = Mul (scores, two)",
        "row_norms = ReduceSumSquare <keepdims = 1> (shifted, features_axis)",
        "squared = Add (doubled, row_norms)",
        "not_negative = Max (squared, zero)",
        "distances = Sqrt (not_negative)",
        "distance = ReduceMin <keepdims = 0> (distances, features_axis)",
        # Away from the best first: its score may be large beside the temperature.
        "best = ReduceMin <keepdims = 1> (scores, features_axis)",
        "worse = Sub (scores, best)",
        "logits = Mul (worse, sharpness)",
        f"{shares} = Softmax <axis = 1> (logits)",
    ]
    if model.parts is not None:
        steps.append(f"cluster = Gather (owners, {center})")
        steps.append(f"probabilities = MatMul ({shares}, owned)")
    header = f'ir_version: {_IR_VERSION}, opset_import: ["": {_OPSET}], producer_name: "dink"'
    made = onnx.parser.parse_model(
        f'<{header}, producer_version: "{__version__}"> '
        f"dink ({kind}[batch, {model.n_features}] rows) => (int64[batch] cluster, "
        f"float[batch] distance, float[batch, {model.n_clusters}] probabilities) "
        f"{{ {' '.join(steps)} }}"
    )
    constants = [onnx.numpy_helper.from_array(v, name) for name, v in _constants(model).items()]
    made.graph.initializer.extend(constants)
    properties = {"metric": model.metric, "dink.fingerprint": model.fingerprint}
    onnx.helper.set_model_props(made, properties)
    onnx.checker.check_model(made)
    with open(path, "wb") as file:
        file.write(made.SerializeToString())


def _constants(model: Model) -> dict[str, np.ndarray]:
    centers = model.centers.astype(np.float64)
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
    if model.offset is not None:
        constants["offset"] = model.offset
    if model.parts is not None:
        constants |= {"owners": model.center_clusters, "owned": model.ownership}
    return {name: np.asarray(array) for name, array in (constants | model.maps).items()}


def _pt2(model: Model, path: str) -> None:
    from dinkcli.models import program  # imports torch, which nothing else here needs

    program.write(model, path)


def _faiss(model: Model, path: str, inverted: bool = False) -> None:
    """An IndexFlatL2, whose ``search(rows, 1)`` gives distances and clusters, or an ``inverted``
    IndexIVFFlat with the centres as its lists, trained and empty."""
    faiss = require("faiss", "faiss", "faiss export")
    k, d = model.n_clusters, model.n_features
    flat, centers = faiss.IndexFlatL2(d), np.ascontiguousarray(model.centers)
    if model.parts is not None:
        index = faiss.IndexIDMap(flat)
        index.add_with_ids(centers, model.center_clusters)
    else:
        flat.add(centers)
        index = faiss.IndexIVFFlat(flat, d, k, faiss.METRIC_L2) if inverted else flat
        index.is_trained = True
    transform = None
    if model.metric == "cosine":
        transform = faiss.NormalizationTransform(d, 2.0)
    elif model.map is not None and model.origin is not None:
        transform = faiss.LinearTransform(d, d, True)
        shift = -(model.origin.astype(np.float64) @ model.map)
        faiss.copy_array_to_vector(np.ascontiguousarray(model.map.T).ravel(), transform.A)
        faiss.copy_array_to_vector(shift.astype(np.float32), transform.b)
        transform.is_trained = True
    if transform is not None:
        index = faiss.IndexPreTransform(transform, index)
        index.is_trained = True
    faiss.write_index(index, path)


def _sklearn(model: Model, path: str) -> None:
    """A fitted KMeans behind what the metric does to rows: ``skops.io.load(path)`` reads it.
    ``predict`` takes float32 rows, as the centres are float32; with an offset float64 ones."""
    skops = require("skops.io", "sklearn", "scikit-learn export")

    def part(name: str) -> Any:
        return require(f"sklearn.{name}", "sklearn", "scikit-learn export")

    kind, steps = np.float32 if model.offset is None else np.float64, []
    if model.offset is not None:
        scaler = part("preprocessing").StandardScaler(with_std=False)
        scaler.fit(np.zeros((1, model.n_features)))
        scaler.mean_ = model.offset
        steps.append(scaler)
    if model.map is not None:
        # A PCA subtracts a mean and multiplies by a matrix, whatever that is.
        some = np.eye(model.n_features + 1, model.n_features, dtype=np.float32)
        transform = part("decomposition").PCA(model.n_features).fit(some)
        transform.mean_, transform.components_ = model.origin, np.ascontiguousarray(model.map.T)
        steps.append(transform)
    if model.metric == "cosine":
        steps.append(part("preprocessing").Normalizer())
    centers = np.ascontiguousarray(model.cluster_centers, kind)
    estimator = part("cluster").KMeans(model.n_clusters, init=centers, n_init=1, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge, and is not meant to
        estimator.fit(centers)
    estimator.cluster_centers_ = centers
    estimator.labels_ = np.arange(model.n_clusters, dtype=np.int32)
    skops.dump(part("pipeline").make_pipeline(*steps, estimator) if steps else estimator, path)


EXPORTERS: dict[str, Callable[[Model, str], None]] = {
    "npy": _npy,
    "parquet": _parquet,
    "csv": _csv,
    "json": _json,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
    "faiss": _faiss,
    "faiss-ivf": partial(_faiss, inverted=True),
    "sklearn": _sklearn,
}
_CENTERS_ALONE = ("npy", "parquet", "csv")
_BY_POSITION = ("npy", "safetensors", "faiss-ivf", "sklearn")
_WITHOUT_SUFFIX = ("sklearn", "faiss-ivf")
SUFFIXES = {name: name for name in EXPORTERS if name not in _WITHOUT_SUFFIX} | {"skops": "sklearn"}


def export(
    model: Model | str | os.PathLike[str], path: str | os.PathLike[str], format: str | None = None
) -> str:
    """Writes a model for other tools to ``path``, whole or not at all.

    Args:
        model: a model or the path of one.
        format: a key of ``EXPORTERS``; the functions there say what each holds. By default it
            follows from the suffix of ``path``.

    Returns:
        The format.

    Raises:
        UsageError: an unknown format, or a place that cannot be written.
        ExtraError: the format needs a package that is not installed.
        OutputError: the file system refused, or the format cannot hold a model of this size.
    """
    model, path = as_model(model), os.fspath(path)
    format = format or by_suffix(path, SUFFIXES)
    if format not in EXPORTERS:
        raise UsageError(f"format {format!r}: expected one of {', '.join(EXPORTERS)}")
    if model.maps and format in _CENTERS_ALONE:
        raise UsageError(
            f"format {format}: holds centres alone, and the centres of a model with `metric` "
            "learned go with its map; export to safetensors or json, which hold both"
        )
    if model.parts is not None and format in _BY_POSITION:
        raise UsageError(
            f"format {format}: takes a position for a cluster, and a cluster of this "
            "edited model may have several; export to onnx, pt2, faiss, json, csv or parquet"
        )
    if model.offset is not None and format.startswith("faiss"):
        raise UsageError(
            f"format {format}: faiss computes in float32, and the rows of this model lie so far "
            "from zero that float32 cannot tell them apart; export to onnx, pt2 or sklearn"
        )
    with atomic_path(path) as temporary:
        EXPORTERS[format](model, temporary)
    return format
