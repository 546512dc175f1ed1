"""Assigning, end to end, against what others do with the rows in memory already.

    pip install faiss-cpu scikit-learn duckdb
    python benchmarks/assign.py [--rows 200000 --clusters 1000 --features 384 --repeats 5]

dink reads a file, assigns, and writes parquet (without the start of Python and torch): npy, and
parquet with a list of fixed size (as pyarrow and polars write vectors), of float32 (DuckDB, pandas)
and of float64 (Python's numbers). DuckDB reads the first of these and writes one number of each
row, which no cluster is. Against them,
with the same rows in memory, no input and no output: a bare matrix product and argmin in chunks of
4096 rows by torch (what labels cost at least), faiss IndexFlatL2.search, and scikit-learn's
KMeans.predict. All run in turns in one process, on as many threads; medians, of processor time too,
which other work on the machine moves less. Ratios are rows per second of a row over those of the
other: above 1, dink with its file to read and write is faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import dinkcli
from dinkcli.assigning.pipeline import Job, run
from dinkcli.assigning.writers import Output, encoding_of
from dinkcli.data.inputs import open_data
from dinkcli.options import AssignOptions

Labels = Callable[[], np.ndarray]


def bare(z: np.ndarray, centers: np.ndarray) -> Labels:
    rows, c = torch.from_numpy(z), torch.from_numpy(centers)
    half_norms = c.square().sum(1) / 2

    def labels() -> np.ndarray:
        parts = [
            torch.addmm(half_norms, part, c.T, alpha=-1).argmin(1) for part in rows.split(4096)
        ]
        return torch.cat(parts).numpy()

    return labels


def faiss_flat(z: np.ndarray, centers: np.ndarray) -> Labels:
    import faiss

    index = faiss.IndexFlatL2(centers.shape[1])
    index.add(centers)
    return lambda: index.search(z, 1)[1][:, 0]


def sklearn_kmeans(z: np.ndarray, centers: np.ndarray) -> Labels:
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = KMeans(len(centers), init=centers, n_init=1, max_iter=1).fit(centers)
    estimator.cluster_centers_ = centers
    return lambda: estimator.predict(z)


def duckdb_copy(path: Path) -> Callable[[], None]:
    """Reads all vectors and writes a column, in as many threads as torch has."""
    import duckdb

    connection = duckdb.connect(config={"threads": torch.get_num_threads()})
    target = path.with_suffix(".duckdb.parquet")
    query = f"copy (select list_sum(embedding::float[]) from '{path}') to '{target}'"
    return lambda: connection.execute(query) and None


def dink(path: Path, model: dinkcli.Model, target: Path, read: Labels) -> Labels:
    def labels() -> np.ndarray:
        data = open_data([str(path)])
        job = Job(model, data, AssignOptions())
        run(job, Output(str(target), encoding_of(str(target))), "cpu")
        return read()

    return labels


def write_inputs(folder: Path, z: np.ndarray) -> dict[str, Path]:
    rows, n_features = z.shape
    files = {"npy": folder / "x.npy"}
    np.save(files["npy"], z)
    fixed = pa.list_(pa.field("element", pa.float32(), nullable=False), n_features)
    single, double = (pa.array(z.reshape(-1).astype(kind)) for kind in (np.float32, np.float64))
    offsets = pa.array(np.arange(0, rows * n_features + 1, n_features, dtype=np.int32))
    columns = {
        "fixed": pa.FixedSizeListArray.from_arrays(single, type=fixed),
        "list<float>": pa.ListArray.from_arrays(offsets, single),
        "list<double>": pa.ListArray.from_arrays(offsets, double),
    }
    for number, (kind, vectors) in enumerate(columns.items()):
        path = files[f"parquet ({kind})"] = folder / f"x{number}.parquet"
        field = pa.field("embedding", vectors.type, nullable=kind != "fixed")
        table = pa.Table.from_arrays([vectors], schema=pa.schema([field]))
        pq.write_table(table, path, use_dictionary=False, row_group_size=50_000)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(args.clusters, args.features)).astype(np.float32)
    z = centers[rng.integers(0, args.clusters, args.rows)]
    z += rng.normal(size=z.shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = dinkcli.Model(centers, np.ones(args.clusters))
        others: dict[str, Labels] = {"bare GEMM + argmin": bare(z, centers)}
        for title, make in (("faiss", faiss_flat), ("scikit-learn", sklearn_kmeans)):
            try:
                others[title] = make(z, centers)
            except ImportError:
                print(f"{title} is not installed")
        ours: dict[str, Callable[[], np.ndarray | None]] = {}
        files = write_inputs(folder, z)
        for kind, path in files.items():
            target = path.with_suffix(".labels.parquet")
            # What is written is compared below; reading it again takes no time to speak of.
            read = lambda t=target: pq.read_table(t)["cluster"].to_numpy()  # noqa: E731
            ours[f"dink, {kind} to parquet"] = dink(path, model, target, read)
        try:
            ours["DuckDB, parquet (fixed) to parquet"] = duckdb_copy(files["parquet (fixed)"])
        except ImportError:
            print("duckdb is not installed")
        times: dict[str, list[tuple[float, float]]] = {title: [] for title in (*others, *ours)}
        expected = others["bare GEMM + argmin"]()
        for _ in range(args.repeats):
            for title, labels in {**others, **ours}.items():
                wall, processor = time.perf_counter(), time.process_time()
                found = labels()
                took = time.perf_counter() - wall, time.process_time() - processor
                times[title].append(took)
                assert found is None or (found != expected).mean() < 1e-4, title
    report(args, {t: np.median(values, axis=0) for t, values in times.items()}, list(ours))


def report(args: argparse.Namespace, seconds: dict[str, np.ndarray], ours: list[str]) -> None:
    print(
        f"N, K, D = {args.rows}, {args.clusters}, {args.features}; {torch.get_num_threads()} "
        f"threads; medians of {args.repeats}\n"
    )
    others = [title for title in seconds if title not in ours]
    print("| | rows/s | processor, s | " + " | ".join(f"over {title}" for title in others) + " |")
    print("|---|" + "---|" * (len(others) + 2))
    for title, (wall, processor) in seconds.items():
        ratios = [f"{seconds[other][0] / wall:.2f}" for other in others]
        figures = [f"{args.rows / wall:,.0f}", f"{processor:.2f}", *ratios]
        print(f"| {title} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()
