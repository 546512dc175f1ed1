"""Agreement with known classes: dink's metrics beside other ways to cluster embeddings.

70 % of the rows are clustered, and the model then takes the other 30 %, which it has not seen;
what has no model for new rows is measured on the 70 % alone. Prints a table of NMI, ACC and ARI
(percent) and seconds, mean over seeds, with the worst NMI.

    python benchmarks/agreement.py [--seeds 3] [--folder FOLDER] [--sets 'digits;blobs']

FOLDER may hold labelled sets as NAME.npy and NAME_labels.npy.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture

import dinkcli

SAMPLES = Path(__file__).parent.parent / "sample_data"
Labels = tuple[np.ndarray, "np.ndarray | None"]


def dink(metric: str) -> Callable[..., Labels]:
    def run(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
        model = dinkcli.train(rows, k, metric=metric, seed=seed, device="cpu")
        return dinkcli.assign(model, rows), dinkcli.assign(model, new)

    return run


def kmeans(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    model = KMeans(k, n_init=10, random_state=seed).fit(rows)
    return model.labels_, model.predict(new)


def spectral(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    model = SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=15, random_state=seed)
    return model.fit_predict(rows), None


def ward(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    return AgglomerativeClustering(k).fit_predict(rows), None


def mixture(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    model = GaussianMixture(k, covariance_type="tied", reg_covar=1e-4, random_state=seed).fit(rows)
    return model.predict(rows), model.predict(new)


def umap_kmeans(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    import umap

    reducer = umap.UMAP(n_components=10, n_neighbors=15, min_dist=0.0, random_state=seed)
    model = KMeans(k, n_init=10, random_state=seed).fit(reducer.fit_transform(rows))
    return model.labels_, model.predict(reducer.transform(new))


def umap_hdbscan(rows: np.ndarray, new: np.ndarray, k: int, seed: int) -> Labels:
    import umap
    from sklearn.cluster import HDBSCAN

    reducer = umap.UMAP(n_components=10, n_neighbors=15, min_dist=0.0, random_state=seed)
    return HDBSCAN(min_cluster_size=15).fit_predict(reducer.fit_transform(rows)), None


METHODS = {
    "dink euclidean": dink("euclidean"),
    "dink cosine": dink("cosine"),
    "dink learned": dink("learned"),
    "KMeans, 10 starts": kmeans,
    "spectral, 15 neighbours": spectral,
    "UMAP, KMeans": umap_kmeans,
    "UMAP, HDBSCAN": umap_hdbscan,
    "Ward": ward,
    "mixture, tied": mixture,
}


def blobs(sizes: object, spread: float, seed: int, stretched: bool = False) -> tuple:
    many = (
        {"n_samples": sizes} if isinstance(sizes, list) else {"n_samples": 2000, "centers": sizes}
    )
    rows, labels = make_blobs(
        **many, n_features=16, cluster_std=spread, random_state=seed, center_box=(-4, 4)
    )
    if stretched:
        turn = np.random.default_rng(0).normal(size=(16, 16))
        rows = rows @ turn @ np.diag(np.linspace(0.2, 3, 16))
    return rows.astype(np.float32), labels


def sets(folder: Path | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    yield "digits", *(np.load(SAMPLES / f"digits{part}.npy") for part in ("", "_labels"))
    table = pq.read_table(SAMPLES / "stdlib.parquet")
    rows = np.stack(table["embedding"].to_pandas()).astype(np.float32)
    _, labels, counts = np.unique(
        table["module"].to_numpy(), return_inverse=True, return_counts=True
    )
    often = counts[labels] >= 30
    yield "stdlib, modules of 30", rows[often], np.unique(labels[often], return_inverse=True)[1]
    for path in sorted(folder.glob("*_labels.npy")) if folder else ():
        name = path.name.removesuffix("_labels.npy")
        yield name, np.load(path.parent / f"{name}.npy").astype(np.float32), np.load(path)
    yield "blobs", *blobs(10, 1.0, 3)
    yield "blobs, overlapping", *blobs(10, 2.6, 3)
    yield "blobs, 1:100", *blobs([2000, 20, 2000, 20, 200], 1.0, 5)
    yield "blobs, anisotropic", *blobs(8, 1.0, 3, stretched=True)


def scores(labels: np.ndarray, found: np.ndarray | None) -> tuple[float, ...]:
    if found is None:
        return (np.nan,) * 3
    table = np.zeros((labels.max() + 1, found.max() + 2))
    np.add.at(table, (labels, found), 1)  # what HDBSCAN calls noise is in the last column
    pairs = linear_sum_assignment(-table)
    return (
        100 * normalized_mutual_info_score(labels, found),
        100 * table[pairs].sum() / len(labels),
        100 * adjusted_rand_score(labels, found),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sets")
    parser.add_argument("--methods", default=";".join(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = args.methods.split(";")
    for name, rows, labels in sets(args.folder):
        if args.sets and name not in args.sets.split(";"):
            continue
        print(f"\n**{name}** ({len(rows)} x {rows.shape[1]}, K={labels.max() + 1})\n")
        print("| method | NMI / ACC / ARI | worst NMI | new rows | worst NMI | s |")
        print("|---|---|---|---|---|---|")
        for method in methods:
            found, new, seconds = [], [], []
            for seed in range(args.seeds):
                order = np.random.default_rng(seed).permutation(len(rows))
                here, there = np.split(order, [int(0.7 * len(rows))])
                started = time.perf_counter()
                try:
                    ours, theirs = METHODS[method](
                        rows[here], rows[there], int(labels.max()) + 1, seed
                    )
                except ImportError:
                    break
                seconds.append(time.perf_counter() - started)
                found.append(scores(labels[here], ours))
                new.append(scores(labels[there], theirs))
            if not found:
                continue
            cells = []
            for each in (np.array(found), np.array(new)):
                missing = np.isnan(each).any()
                cells.append("-" if missing else " / ".join(f"{v:.1f}" for v in each.mean(0)))
                cells.append("-" if missing else f"{each[:, 0].min():.1f}")
            print(f"| {method} | {' | '.join(cells)} | {np.median(seconds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
