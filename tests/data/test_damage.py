"""Damaged files give the right rows or one clear error, whatever bytes are in them."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dinkcli.data.inputs import open_data
from dinkcli.errors import DinkError

N, DIM = 40, 5
VECTORS = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
LISTS = pa.table({"id": range(N), "e": pa.array(VECTORS.tolist(), pa.list_(pa.float32()))})


def stream(path):
    with pa.ipc.new_stream(path, LISTS.schema) as writer:
        writer.write_table(LISTS, max_chunksize=15)


def vecs(path):
    records = np.empty(N, [("d", "<i4"), ("v", "<f4", (DIM,))])
    records["d"], records["v"] = DIM, VECTORS
    records.tofile(path)


WRITERS = {
    "x.npy": lambda path: np.save(path, VECTORS),
    "stored.npz": lambda path: np.savez(path, VECTORS),
    "packed.npz": lambda path: np.savez_compressed(path, VECTORS),
    "x.parquet": lambda path: pq.write_table(LISTS, path, row_group_size=15),
    "fixed.parquet": lambda path: pq.write_table(
        pa.table({"e": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), DIM)}),
        path,
        compression="zstd",
    ),
    "x.feather": lambda path: pa.feather.write_feather(LISTS, path, compression="uncompressed"),
    "x.arrows": stream,
    "x.safetensors": lambda path: save_file({"e": VECTORS}, path),
    "x.fvecs": vecs,
    "x.csv": lambda path: np.savetxt(path, VECTORS, delimiter=","),
    "x.jsonl": lambda path: Path(path).write_text("\n".join(str(r.tolist()) for r in VECTORS)),
}


@functools.cache
def valid(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](f"{folder}/{name}")
        return Path(folder, name).read_bytes()


@st.composite
def mutations(draw: st.DrawFn, name: str) -> bytes:
    """Bytes changed, taken out, put in, or cut off at the end; often near the ends."""
    data = bytearray(valid(name))
    for _ in range(draw(st.integers(1, 4))):
        edge = draw(st.integers(0, min(200, len(data))))
        anywhere = draw(st.integers(0, len(data)))
        place = draw(st.sampled_from([edge, len(data) - edge, anywhere]))
        match draw(st.sampled_from(["change", "cut", "take", "put"])):
            case "change":
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del data[place:]
            case "take":
                del data[place : place + draw(st.integers(1, 64))]
            case "put":
                data[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(data=st.data())
def test_mutated_files(name, data):
    mutated = data.draw(mutations(name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(mutated)
        try:
            found = open_data([str(path)]).repeatable()
            rows = np.concatenate([block.vectors for block in found.blocks(7)])
        except DinkError as error:
            assert name in str(error)
            assert "\n" not in str(error)
            return
        # Changed numbers are none of our business; the shape is.
        assert rows.shape == (found.n_rows, found.n_features)
        assert np.isfinite(rows).all()


def test_the_files_are_valid():
    with tempfile.TemporaryDirectory() as folder:
        for name in WRITERS:
            path = Path(folder, name)
            path.write_bytes(valid(name))
            np.testing.assert_allclose(
                open_data([str(path)]).repeatable().load_rows()[0], VECTORS, rtol=1e-6
            )
