"""What Python holds in memory: each kind gives the model and the labels of the plain array."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.errors import DinkError, InputError

N, DIM, K = 90, 5, 3
rng = np.random.default_rng(1)
# Halves of small integers: every type holds them.
Z = (rng.integers(-8, 9, (N, DIM)) / 2 + 20 * np.eye(K, DIM)[np.arange(N) % K]).astype(np.float32)
Z[rng.random((N, DIM)) < 0.3] = 0
LISTS = Z.tolist()
NAMES = [f"dim_{j}" for j in range(DIM)]
FRAME = pd.DataFrame(Z, columns=NAMES)
WITH_IDS = FRAME.assign(id=range(1000, 1000 + N), text="x", price=3.5)


class Capsule:
    """Nothing but Arrow's interface."""

    def __init__(self, values, name):
        self._values = values
        setattr(self, name, getattr(values, name))


KINDS = {
    "array": Z,
    "float16": Z.astype(np.float16),
    "big endian": Z.astype(">f8"),
    "fortran": np.asfortranarray(Z),
    "N, 1, D": Z[:, None],
    "masked, nothing hidden": np.ma.masked_array(Z),
    "list of lists": LISTS,
    "tuple of tuples": tuple(map(tuple, LISTS)),
    "list of arrays": list(Z),
    "list of tensors": list(torch.from_numpy(Z)),
    "list of dictionaries": [{"id": i, "e": row} for i, row in enumerate(LISTS)],
    "tensor": torch.from_numpy(Z),
    "tensor with gradient": torch.from_numpy(Z).requires_grad_(),
    "bfloat16": torch.from_numpy(Z).bfloat16(),
    "half": torch.from_numpy(Z).half(),
    "sparse tensor": torch.from_numpy(Z).to_sparse(),
    "csr": sp.csr_matrix(Z),
    "csc array": sp.csc_array(Z),
    "coo": sp.coo_matrix(Z),
    "pandas": FRAME,
    "pandas, numbered": pd.DataFrame(Z),
    "pandas, with an index": FRAME.set_index(pd.Index(np.arange(N) * 0.5)),
    "pandas, a list in each row": pd.DataFrame({"id": range(N), "e": LISTS}),
    "pandas series": pd.Series(LISTS),
    "pandas series of arrays": pd.Series(list(Z), name="e", index=np.arange(N)[::-1]),
    "polars": pl.DataFrame(Z, schema=NAMES),
    "polars, a list in each row": pl.DataFrame({"id": list(range(N)), "e": LISTS}),
    "polars array": pl.DataFrame({"e": pl.Series(Z, dtype=pl.Array(pl.Float32, DIM))}),
    "polars series": pl.Series("e", LISTS),
    "table": pa.table({"id": range(N), "e": LISTS}),
    "record batch": pa.RecordBatch.from_pydict({"e": LISTS}),
    "array of arrow": pa.array(LISTS),
    "chunks of arrow": pa.chunked_array([LISTS[:40], LISTS[40:]]),
    "fixed-size lists": pa.FixedSizeListArray.from_arrays(pa.array(Z.ravel()), DIM),
    "stream of a table": Capsule(pa.table({"e": LISTS}), "__arrow_c_stream__"),
    "stream of a column": Capsule(pa.chunked_array([LISTS]), "__arrow_c_stream__"),
    "array of a batch": Capsule(pa.RecordBatch.from_pydict({"e": LISTS}), "__arrow_c_array__"),
    "array of a column": Capsule(pa.array(LISTS), "__arrow_c_array__"),
}


@pytest.fixture(scope="module")
def plain():
    model = dinkcli.train(Z, K, device="cpu")
    return model, dinkcli.assign(model, Z)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_centres_of_the_array(plain, kind):
    model, labels = plain
    found = dinkcli.train(KINDS[kind], K, device="cpu")
    np.testing.assert_array_equal(found.cluster_centers, model.cluster_centers)
    np.testing.assert_array_equal(dinkcli.assign(found, KINDS[kind]), labels)
    np.testing.assert_array_equal(dinkcli.assign(model, KINDS[kind]), labels)
    np.testing.assert_array_equal(open_data(KINDS[kind]).part(7, 50).load_rows()[0], Z[7:50])


def test_columns_are_chosen_as_in_files(plain):
    model, labels = plain
    for frame in (WITH_IDS, pl.from_pandas(WITH_IDS), pa.Table.from_pandas(WITH_IDS)):
        found = dinkcli.train(frame, K, column="dim_*", device="cpu")
        np.testing.assert_array_equal(found.cluster_centers, model.cluster_centers)
        np.testing.assert_array_equal(dinkcli.assign(found, frame), labels)  # it knows its columns
    two = pd.DataFrame({"a": LISTS, "b": (2 * Z).tolist()})
    with pytest.raises(DinkError, match="2 columns could hold the embeddings"):
        dinkcli.train(two, K)
    np.testing.assert_array_equal(
        dinkcli.train(two, K, column="b", device="cpu").cluster_centers, 2 * model.cluster_centers
    )
    weights = np.arange(N) % 2
    once = dinkcli.train(Z[weights == 1], 1, device="cpu")
    weighted = dinkcli.train(FRAME, 1, sample_weight=weights, device="cpu")
    np.testing.assert_allclose(weighted.cluster_centers, once.cluster_centers, atol=1e-5)


HIDDEN = np.zeros((N, DIM), bool)
HIDDEN[[4, 71], [3, 0]] = True
SENTINEL = np.where(HIDDEN, -9999, Z)
RAGGED = [row[: 4 if HIDDEN[i].any() else DIM] for i, row in enumerate(LISTS)]
BAD = {
    "masked": (np.ma.masked_array(SENTINEL, HIDDEN), "row 4 is masked in feature 3"),
    "masked integers": (
        np.ma.masked_array((2 * SENTINEL).astype(np.int32), HIDDEN),
        "row 4 is masked in feature 3",
    ),
    "rows masked": (
        [np.ma.masked_array(s, h) for s, h in zip(SENTINEL, HIDDEN, strict=True)],
        "row 4",
    ),
    "ragged": (RAGGED, "row 4 of column 'vectors' has 4 elements, expected 5"),
    "None": ([None if HIDDEN[i].any() else row for i, row in enumerate(LISTS)], "row 4: column"),
    "None among dictionaries": (
        [None if HIDDEN[i].any() else {"id": i} | {"e": row} for i, row in enumerate(LISTS)],
        "row 4: column 'e' is null",
    ),
    "no vector in a dictionary": (
        [{"id": i} | ({} if HIDDEN[i].any() else {"e": row}) for i, row in enumerate(LISTS)],
        "row 4: column 'e' is null",
    ),
    "null in a frame": (FRAME.where(~HIDDEN), "row 4"),
    "null in polars": (pl.from_pandas(FRAME.where(~HIDDEN)), "row 4: column 'dim_3' is null"),
    "NaN in a sparse matrix": (sp.csr_matrix(np.where(HIDDEN, np.nan, Z)), "row 4 holds nan"),
    "NaN in bfloat16": (
        torch.from_numpy(np.where(HIDDEN, np.nan, Z)).bfloat16(),
        "row 4 holds nan",
    ),
}


@pytest.mark.parametrize("memory", [None, 100])
@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_named_and_left_out(kind, memory):
    values, message = BAD[kind]
    with pytest.raises(InputError, match=message):
        dinkcli.train(values, K, device="cpu", memory=memory)
    found = dinkcli.train(values, 1, device="cpu", bad_rows="skip", memory=memory)
    scale = 2 if kind == "masked integers" else 1
    expected = np.delete(Z, [4, 71], 0).astype(np.float64).mean(0)
    np.testing.assert_allclose(found.cluster_centers[0] / scale, expected, atol=1e-5)
    labels = dinkcli.assign(found, values, bad_rows="label")
    assert np.flatnonzero(labels == -1).tolist() == [4, 71] and len(labels) == N


REFUSED = {
    "a number": 3,
    "nothing": None,
    "an empty list": [],
    "texts and numbers": ["a", 1],
    "one row": Z[0],
    "complex": Z.astype(complex),
    "texts": np.array([["a", "b"]]),
    "a set": {1, 2},
    "objects": [object(), object()],
    "a frame of texts": pd.DataFrame({"a": ["x", "y"]}),
    "no rows": np.empty((0, 3)),
    "no features": np.empty((3, 0)),
    "a generator": (row for row in Z),
    "a dictionary": {"e": LISTS},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_in_one_line(kind):
    with pytest.raises(DinkError) as found:
        dinkcli.train(REFUSED[kind], 2)
    assert "\n" not in str(found.value) and len(str(found.value)) < 400
    with pytest.raises(DinkError, match="`column` names a column, but an array has none"):
        dinkcli.train(Z, 2, column="e")
