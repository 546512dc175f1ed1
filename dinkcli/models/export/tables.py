"""A model's centres as arrays, tables and documents."""

from __future__ import annotations

import json as json_text

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from dinkcli.models.model import Model


def npy(model: Model, path: str) -> None:
    with open(path, "wb") as file:
        np.save(file, model.cluster_centers, allow_pickle=False)


def parquet(model: Model, path: str) -> None:
    value = pa.field("element", pa.float32(), nullable=False)
    vector = pa.list_(value, model.n_features)
    schema = pa.schema(
        [
            pa.field("cluster", pa.int32(), nullable=False),
            pa.field("center", vector, nullable=False),
        ]
    )
    centers = pa.FixedSizeListArray.from_arrays(
        pa.array(model.cluster_centers.reshape(-1)), type=vector
    )
    table = pa.Table.from_arrays([_clusters(model), centers], schema=schema)
    pq.write_table(table, path, use_dictionary=False)


def csv(model: Model, path: str) -> None:
    names = [f"dim_{d}" for d in range(model.n_features)]
    columns = [_clusters(model), *(pa.array(column) for column in model.cluster_centers.T)]
    pyarrow.csv.write_csv(pa.Table.from_arrays(columns, ["cluster", *names]), path)


def json(model: Model, path: str) -> None:
    document = {
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "metric": model.metric,
        "fingerprint": model.fingerprint,
        "cluster_centers": model.cluster_centers.astype(float).tolist(),
    }
    document |= {name: values.astype(float).tolist() for name, values in model.maps.items()}
    with open(path, "w", encoding="utf-8") as file:
        json_text.dump(document, file, allow_nan=False)
        file.write("\n")


def safetensors(model: Model, path: str) -> None:
    """The head's state dict alone: loads into any module with a ``cluster_centers`` parameter."""
    save_file({"cluster_centers": model.cluster_centers, **model.maps}, path)


def _clusters(model: Model) -> pa.Array:
    return pa.array(np.arange(model.n_clusters, dtype=np.int32))
