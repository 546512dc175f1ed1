"""Reading speed on a warm cache, as ratios to the plainest way of getting the same numbers.

    python benchmarks/readers.py [--rows 200000 --features 384 --repeats 7 --folder DIR]

In one process and in turns; medians. "plain" is a sequential readinto of 8 MB pieces for npy, and
``pyarrow.parquet`` reading the column for parquet: ``read_table`` (all cores, everything held at
once) and ``ParquetFile.iter_batches`` (one thread, as dink must, in pieces); "stack" is
``np.stack(df[col])`` of a frame that is loaded already, "read and stack" with pandas' reading.
dink's time includes the conversion to float32 and the search for rows that are not finite; "ahead"
is dink reading on a thread, beside nothing that computes.
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch  # noqa: F401  # training and assigning have it at hand, to convert half floats

from dinkcli.data.dataset import read_ahead
from dinkcli.data.inputs import open_data


def dink(path: str) -> None:
    for block in open_data([path]).blocks():
        assert block.vectors.dtype == np.float32


def ahead(path: str) -> None:
    for block in read_ahead(open_data([path]).blocks()):
        assert block.vectors.dtype == np.float32


def readinto(path: str) -> None:
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_table(path: str) -> None:
    pq.read_table(path, columns=["e"])


def iter_batches(path: str) -> None:
    for _ in pq.ParquetFile(path).iter_batches(8192, columns=["e"]):
        pass


def read_and_stack(path: str) -> None:
    np.stack(pd.read_parquet(path, columns=["e"])["e"]).astype(np.float32)


def stack(path: str) -> Callable[[str], None]:
    frame = pd.read_parquet(path, columns=["e"])
    return lambda _: np.stack(frame["e"]).astype(np.float32)


def write_texts(folder: str, vectors: np.ndarray) -> dict[str, str]:
    """The same numbers as one column per dimension, and as text in one cell."""
    lists = [str(row) for row in vectors.tolist()]
    tight = [row[1:-1].replace(" ", "") for row in lists]
    names = ",".join(f"dim_{j}" for j in range(vectors.shape[1]))
    cells = "".join(f'{i},"{row}"\n' for i, row in enumerate(lists))
    words = "".join(f"w{i} {row.replace(',', ' ')}\n" for i, row in enumerate(tight))
    texts = {
        "wide.csv": f"{names}\n" + "".join(f"{row}\n" for row in tight),
        "cells.csv": f"id,e\n{cells}",
        "copy.tsv": "".join(f"{i}\t[{row}]\n" for i, row in enumerate(tight)),
        "rows.jsonl": "".join(f'{{"id": {i}, "e": {row}}}\n' for i, row in enumerate(lists)),
        "array.json": "[" + ",".join(f'{{"id": {i}, "e": {r}}}' for i, r in enumerate(lists)) + "]",
        "glove.txt": words,
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    coded = [base64.b64encode(row.tobytes()).decode() for row in vectors]
    pq.write_table(pa.table({"e": coded}), os.path.join(folder, "coded.parquet"))
    pq.write_table(pa.table({"e": lists}), os.path.join(folder, "cells.parquet"))
    return {name: os.path.join(folder, name) for name in [*texts, "coded.parquet", "cells.parquet"]}


def compare_texts(folder: str, rows: int, features: int, repeats: int) -> None:
    """Rates of reading text, over that of one column per dimension."""
    rng = np.random.default_rng(0)
    paths = write_texts(folder, rng.standard_normal((rows, features), np.float32))
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(repeats):
        for name, path in paths.items():
            started = time.perf_counter()
            dink(path)
            times[name].append(time.perf_counter() - started)
    print(f"\n{rows} x {features} as text; medians of {repeats}\n")
    print("| file | rows/s | rate over wide.csv's |\n|---|---|---|")
    usual = np.median(times["wide.csv"])
    for name, found in times.items():
        taken = np.median(found)
        print(f"| {name} | {rows / taken:,.0f} | {usual / taken:.2f} |", flush=True)


def write(folder: str, rows: int, features: int) -> dict[str, str]:
    paths = {
        name: os.path.join(folder, name)
        for name in ("x.npy", "half.npy", "fixed.parquet", "float.parquet", "double.parquet")
    }
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, features), np.float32)
    np.save(paths["x.npy"], vectors)
    np.save(paths["half.npy"], vectors.astype(np.float16))
    offsets = pa.array(np.arange(0, rows * features + 1, features), pa.int32())
    flat = pa.array(vectors.reshape(-1))
    value = pa.field("element", pa.float32(), nullable=False)
    fixed = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(value, features))
    schema = pa.schema([pa.field("e", fixed.type, nullable=False)])
    columns = {
        "fixed.parquet": pa.Table.from_arrays([fixed], schema=schema),
        "float.parquet": pa.table({"e": pa.ListArray.from_arrays(offsets, flat)}),
        "double.parquet": pa.table(
            {"e": pa.ListArray.from_arrays(offsets, flat.cast(pa.float64()))}
        ),
    }
    for name, table in columns.items():
        group = max(1, (100 << 20) // (4 * features))
        pq.write_table(table, paths[name], use_dictionary=False, row_group_size=group)
    return paths


def medians(ways: dict[str, Callable[[str], None]], path: str, repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way(path)
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(found)) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        paths = write(folder, args.rows, args.features)
        print(f"{args.rows} x {args.features}; medians of {args.repeats}\n")
        print("| file | rows/s | time of others over dink's |\n|---|---|---|")
        for name, path in paths.items():
            ways: dict[str, Callable[[str], None]] = {"dink": dink, "ahead": ahead}
            if name.endswith(".npy"):
                ways |= {"readinto": readinto}
            else:
                ways |= {"read_table": read_table, "iter_batches": iter_batches}
                ways |= {"read and stack": read_and_stack, "stack": stack(path)}
            found = medians(ways, path, args.repeats)
            speed = args.rows / found["dink"]
            ratios = ", ".join(
                f"{found[other] / found['dink']:.2f} x {other}" for other in ways if other != "dink"
            )
            print(f"| {name} | {speed:,.0f} | {ratios} |", flush=True)
        compare_texts(folder, args.rows // 10, args.features, args.repeats)


if __name__ == "__main__":
    main()
