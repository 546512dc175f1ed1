"""Assigning, end to end, against what others do with the rows in memory already.

    pip install faiss-cpu scikit-learn
    python benchmarks/assign.py [--rows 200000 --clusters 1000 --features 384 --repeats 5]

dink reads a file, assigns, and writes parquet (without the start of Python and torch). Against it,
with the same rows in memory, no input and no output: a bare matrix product and argmin in chunks of
4096 rows by torch (what labels cost at least), faiss IndexFlatL2.search, and scikit-learn's
KMeans.predict. All run in turns in one process, on as many threads; medians. Ratios are rows per
second of dink over those of the other: above 1, dink with its file to read and write is faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

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


def dink(path: Path, model: dinkcli.Model, target: Path, read: Labels) -> Labels:
    def labels() -> np.ndarray:
        data = open_data([str(path)])
        job = Job(model, data, AssignOptions())
        run(job, Output(str(target), encoding_of(str(target))), "cpu")
        return read()

    return labels


def write_inputs(folder: Path, z: np.ndarray) -> dict[str, Path]:
    np.save(folder / "x.npy", z)
    element = pa.field("element", pa.float32(), nullable=False)
    type_ = pa.list_(element, z.shape[1])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), type=type_)
    schema = pa.schema([pa.field("embedding", type_, nullable=False)])
    table = pa.Table.from_arrays([vectors], schema=schema)
    pq.write_table(table, folder / "x.parquet", use_dictionary=False, row_group_size=50_000)
    return {"npy": folder / "x.npy", "parquet": folder / "x.parquet"}


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
        ours: dict[str, Labels] = {}
        for kind, path in write_inputs(folder, z).items():
            target = folder / f"{kind}.labels.parquet"
            # What is written is compared below; reading it again takes no time to speak of.
            read = lambda t=target: pq.read_table(t)["cluster"].to_numpy()  # noqa: E731
            ours[f"dink, {kind} to parquet"] = dink(path, model, target, read)
        times: dict[str, list[float]] = {title: [] for title in (*others, *ours)}
        expected = others["bare GEMM + argmin"]()
        for _ in range(args.repeats):
            for title, labels in (others | ours).items():
                started = time.perf_counter()
                found = labels()
                times[title].append(time.perf_counter() - started)
                assert (found != expected).mean() < 1e-4, title
    report(args, {title: median(values) for title, values in times.items()}, list(ours))


def report(args: argparse.Namespace, seconds: dict[str, float], ours: list[str]) -> None:
    print(
        f"N, K, D = {args.rows}, {args.clusters}, {args.features}; {torch.get_num_threads()} "
        f"threads; medians of {args.repeats}\n"
    )
    others = [title for title in seconds if title not in ours]
    print("| | rows/s | " + " | ".join(f"over {title}" for title in others) + " |")
    print("|---|" + "---|" * (len(others) + 1))
    for title, took in seconds.items():
        ratios = [f"{seconds[other] / took:.2f}" for other in others]
        print(f"| {title} | {args.rows / took:,.0f} | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main()
