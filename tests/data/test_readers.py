"""Files as numpy, pandas, DuckDB and pyarrow write them are read as they themselves read them."""

import os
import re

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError, UsageError

DIM = 6


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)


def write_table(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8", "<i4", "u1"])
def test_npy_of_every_dtype_and_order(tmp_path, vectors, dtype, order):
    array = np.asarray((vectors * 10 + 100).astype(dtype), order=order)
    np.save(tmp_path / "x.npy", array)
    data = open_data([str(tmp_path / "x.npy")])
    assert (data.n_rows, data.n_features) == (50, DIM)
    np.testing.assert_array_equal(data.load_rows()[0], array.astype(np.float32))
    parts = [block.vectors for block in data.blocks(rows=7)]
    np.testing.assert_array_equal(np.concatenate(parts), array.astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_every_version(tmp_path, vectors, version):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, vectors, version=version)
    np.testing.assert_array_equal(open_data([str(tmp_path / "x.npy")]).load_rows()[0], vectors)


LIST_TYPES = {
    f"{kind}-{value}": build(value)
    for value in (pa.float16(), pa.float32(), pa.float64())
    for kind, build in {
        "fixed": lambda value: pa.list_(value, DIM),
        "list": pa.list_,
        "large": pa.large_list,
    }.items()
}


@pytest.mark.parametrize("name", LIST_TYPES)
@pytest.mark.parametrize("row_group_size", [7, 100])
def test_parquet_list_columns(tmp_path, vectors, name, row_group_size):
    type_ = LIST_TYPES[name]
    vectors = vectors.astype(np.float16)
    column = pa.array(list(vectors.astype(type_.value_type.to_pandas_dtype())), type_)
    # Sliced arrays have offsets that a reader must not ignore.
    column = pa.concat_arrays([column.slice(40), column])[10:]
    write_table(tmp_path / "x.parquet", {"e": column}, row_group_size=row_group_size)
    data = open_data([str(tmp_path / "x.parquet")])
    assert data.column == "e"
    np.testing.assert_array_equal(data.load_rows()[0], vectors.astype(np.float32))
    parts = [block.vectors for block in data.blocks(rows=9)]
    np.testing.assert_array_equal(np.concatenate(parts), vectors.astype(np.float32))


def test_parquet_written_by_pandas(tmp_path, vectors):
    frame = pd.DataFrame({"id": range(50), "e": list(vectors), "text": "x"})
    frame.to_parquet(tmp_path / "arrays.parquet")
    frame["e"] = [row.tolist() for row in vectors]
    frame.to_parquet(tmp_path / "lists.parquet")
    for name in ("arrays", "lists"):
        data = open_data([str(tmp_path / f"{name}.parquet")])
        np.testing.assert_array_equal(data.load_rows()[0], vectors)


def test_parquet_written_by_duckdb(tmp_path, vectors):
    frame = pd.DataFrame({"e": list(vectors)})  # noqa: F841  (DuckDB finds it by name)
    path = tmp_path / "x.parquet"
    duckdb.sql(f"copy (select e::float[{DIM}] as e from frame) to '{path}'")
    np.testing.assert_array_equal(open_data([str(path)]).load_rows()[0], vectors)


def test_parquet_of_fixed_shape_tensors(tmp_path, vectors):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors)
    write_table(tmp_path / "x.parquet", {"e": tensors})
    np.testing.assert_array_equal(open_data([str(tmp_path / "x.parquet")]).load_rows()[0], vectors)


def test_one_column_per_dimension_in_natural_order(tmp_path):
    wide = np.random.default_rng(1).normal(size=(20, 12)).astype(np.float32)
    order = sorted(range(12), key=str)  # as a naive sort would have them: 0, 1, 10, 11, 2, ...
    columns = {f"dim_{j}": wide[:, j] for j in order}
    write_table(tmp_path / "x.parquet", {"id": np.arange(20), "score": wide[:, 0], **columns})
    data = open_data([str(tmp_path / "x.parquet")])
    np.testing.assert_array_equal(data.load_rows()[0], wide)
    chosen = open_data([str(tmp_path / "x.parquet")], Columns("dim_1*"))
    np.testing.assert_array_equal(chosen.load_rows()[0], wide[:, [1, 10, 11]])


@pytest.mark.parametrize("values", [["1", "2"], [[1.0], [2.0]], [1.0, 2.0]])
def test_a_column_whose_name_stands_twice_is_refused(tmp_path, values):
    pq.write_table(pa.table([values, values], names=["x", "x"]), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="2 columns are named 'x'; give each a name of its own"):
        open_data([str(tmp_path / "x.parquet")], Columns("x"))


def test_unnumbered_float_columns_are_taken_in_file_order(tmp_path):
    write_table(tmp_path / "x.parquet", {"y": [1.0, 2.0], "x": [3.0, 4.0], "id": [7, 8]})
    np.testing.assert_array_equal(
        open_data([str(tmp_path / "x.parquet")]).load_rows()[0], [[1, 3], [2, 4]]
    )


def test_id_column_is_carried_and_not_clustered(tmp_path, vectors):
    names = [f"n{i}" for i in range(50)]
    write_table(tmp_path / "x.parquet", {"key": names, "e": list(vectors)})
    data = open_data([str(tmp_path / "x.parquet")], Columns(id="key"))
    found = [key for block in data.blocks(rows=8) for key in block.carried["key"].to_pylist()]
    assert found == names


def test_several_files_and_folders_are_one_data_set(tmp_path, vectors):
    np.save(tmp_path / "b.npy", vectors[20:])
    write_table(tmp_path / "a.parquet", {"e": list(vectors[:20])})
    (tmp_path / "notes.txt").write_text("not data")
    for paths in ([tmp_path], [tmp_path / "a.parquet", tmp_path / "b.npy"]):
        data = open_data([str(path) for path in paths])
        np.testing.assert_array_equal(data.load_rows()[0], vectors)
        assert [block.start for block in data.blocks(rows=15)] == [0, 15, 20, 35]


def test_format_is_found_by_content(tmp_path, vectors):
    np.save(tmp_path / "x.npy", vectors)
    (tmp_path / "x.npy").rename(tmp_path / "x.parquet")
    np.testing.assert_array_equal(open_data([str(tmp_path / "x.parquet")]).load_rows()[0], vectors)


def refuse(error, message, paths, **columns):
    with pytest.raises(error, match=message):
        list(open_data([str(path) for path in paths], Columns(**columns)).blocks())


def test_a_block_that_is_kept_stays_what_it_was(tmp_path):
    rows = np.arange(1_500_001, dtype=np.float32).reshape(-1, 1) + np.array([0, 0.5], np.float32)
    np.save(tmp_path / "x.npy", rows)
    data = open_data([str(tmp_path / "x.npy")])
    blocks = list(data.blocks(400_001))
    assert [block.start for block in blocks] == [0, 400_001, 800_002, 1_200_003]
    np.testing.assert_array_equal(np.concatenate([b.vectors for b in blocks]), rows)
    (last,) = data.blocks(400_001, since=1_200_003)
    np.testing.assert_array_equal(last.vectors, rows[1_200_003:])
    # A consumer that keeps a block, or stops in between, is served as well.
    few = data.blocks(400_001)
    kept = next(few).vectors
    next(few)
    few.close()
    np.testing.assert_array_equal(kept, rows[:400_001])
    rest = data.blocks(400_001)
    next(rest)
    os.truncate(tmp_path / "x.npy", 6_000_000)
    with pytest.raises(InputError, match=r"x\.npy: ended .* bytes early"):
        list(rest)


def test_every_float16_is_read_exactly(tmp_path):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.tile(every[np.isfinite(every)], 5).reshape(-1, 4)
    np.save(tmp_path / "x.npy", finite)
    read = open_data([str(tmp_path / "x.npy")]).load_rows()[0]
    expected = finite.astype(np.float32)
    np.testing.assert_array_equal(read.view(np.uint32), expected.view(np.uint32))
    for bits in every[~np.isfinite(every)].view(np.uint16)[::97]:
        finite.view(np.uint16)[1234, 3] = bits
        np.save(tmp_path / "x.npy", finite)
        refuse(InputError, "x.npy: row 1234 holds (nan|-?inf) in", [tmp_path / "x.npy"])


def test_bad_paths(tmp_path):
    refuse(UsageError, "nowhere.npy: no such file", [tmp_path / "nowhere.npy"])
    for name, target in (("gone.npy", "nowhere.npy"), ("loop.npy", "loop.npy")):
        (tmp_path / name).symlink_to(target)
        refuse(UsageError, f"{name}: no such file or folder", [tmp_path / name])
        (tmp_path / name).unlink()
    refuse(UsageError, r"no \.npy, .*\.parquet, .* file in this folder", [tmp_path])


def test_bad_npy(tmp_path, vectors):
    path = tmp_path / "x.npy"
    path.write_text("hello world")
    refuse(InputError, "no format that dink reads .*hello wo.*expected npy", [path])
    path.write_bytes(b"")
    refuse(InputError, "it is empty", [path])
    np.save(path, vectors)
    path.write_bytes(path.read_bytes()[:-1])
    refuse(InputError, r"truncated: shape \(50, 6\) of float32 needs 1328 bytes.* 1327", [path])
    path.write_bytes(path.read_bytes()[:40])
    refuse(InputError, "damaged .npy header", [path])
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    refuse(InputError, r"Python objects \(a pickle\), which dink never loads", [path])
    for array, shape in ((vectors[0], r"\(6,\)"), (vectors[None], r"\(1, 50, 6\)")):
        np.save(path, array)
        refuse(InputError, f"shape {shape}, expected 2-D", [path])
    np.save(path, np.array([["a", "b"]]))
    refuse(InputError, "holds <U1, expected floats or integers", [path])
    np.save(path, vectors[:0])
    refuse(InputError, "0 rows of 6 features", [path])
    np.save(path, vectors)
    refuse(UsageError, "`column` names a column, but an .npy file has none", [path], vectors="e")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_that_are_not_finite_are_named(tmp_path, vectors, bad, dtype):
    vectors = vectors.astype(dtype)
    vectors[37, 2] = bad
    np.save(tmp_path / "x.npy", vectors)
    write_table(tmp_path / "x.parquet", {"e": list(vectors)})
    for name in ("x.npy", "x.parquet"):
        refuse(InputError, f"{name}: row 37 holds {bad} in feature 2", [tmp_path / name])
        data = open_data([str(tmp_path / name)], bad_rows="skip")
        for nonzero in (True, False, None):  # also where directions may be of any length
            found = np.concatenate([~block.good for block in data.blocks(nonzero=nonzero)])
            assert np.flatnonzero(found).tolist() == [37]


def test_values_beyond_float32_are_refused_and_large_sums_are_not(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [1e300, 0.0]]))
    refuse(InputError, r"row 1 holds 1e\+300 in feature 0.*finite in float32", [tmp_path / "x.npy"])
    fine = np.full((4, 3), 3e38, np.float32)
    np.save(tmp_path / "x.npy", fine)
    data = open_data([str(tmp_path / "x.npy")])
    np.testing.assert_array_equal(data.load_rows(nonzero=True)[0], fine)  # directions are
    with pytest.raises(InputError, match=r"row 0 holds 3e\+38 in feature 0; squared distances"):
        data.load_rows()[0]
    large = np.full((1 << 12, 3), 1e17, np.float32)  # the sum of all squares overflows
    np.save(tmp_path / "x.npy", large)
    np.testing.assert_array_equal(open_data([str(tmp_path / "x.npy")]).load_rows()[0], large)


def test_bad_parquet_rows_are_named(tmp_path, vectors):
    path = tmp_path / "x.parquet"
    rows = [row.tolist() for row in vectors]
    rows[20] = rows[20][:4]
    write_table(path, {"e": rows}, row_group_size=8)
    refuse(InputError, "row 20 of column 'e' has 4 elements, expected 6", [path])
    rows[20] = None
    for type_ in (pa.list_(pa.float32()), pa.list_(pa.float32(), DIM)):
        write_table(path, {"e": pa.array(rows, type_)}, row_group_size=8)
        refuse(InputError, "row 20: column 'e' is null, expected a vector", [path])
    rows[20] = [None, *rows[0][1:]]
    for type_ in (pa.list_(pa.float32()), pa.list_(pa.float32(), DIM)):
        write_table(path, {"e": pa.array(rows, type_)}, row_group_size=8)
        refuse(InputError, "row 20: column 'e' has a null element", [path])
    write_table(path, {"x": [1.0, None], "y": [1.0, 2.0]})
    refuse(InputError, "row 1: column 'x' is null", [path])
    write_table(path, {"e": pa.array([[], []], pa.list_(pa.float32()))})
    refuse(InputError, "row 0 of column 'e' is null or has no elements", [path])


def test_bad_parquet_columns_are_named(tmp_path, vectors):
    path = tmp_path / "x.parquet"
    write_table(path, {"image": list(vectors), "text": list(vectors)})
    refuse(UsageError, "2 columns .*'image', 'text'; choose one with .column. image", [path])
    np.testing.assert_array_equal(open_data([str(path)], Columns("text")).load_rows()[0], vectors)
    np.testing.assert_array_equal(
        open_data([str(path)], Columns(usual="text")).load_rows()[0], vectors
    )
    refuse(UsageError, "no column 'sound'; it has 'image', 'text'", [path], vectors="sound")
    refuse(UsageError, "`ids` key: no such file", [path], vectors="text", id="key")
    write_table(path, {f"{p}_{j}": vectors[:, j] for p in "ab" for j in range(DIM)})
    refuse(UsageError, r"2 columns .*'a_\*', 'b_\*'", [path])
    write_table(path, {"name": ["x"], "n": [1]})
    refuse(InputError, "no column of vectors.*'name: string'", [path])
    refuse(UsageError, "column 'name' is string, expected a list", [path], vectors="name")


def test_truncated_parquet(tmp_path, vectors):
    path = tmp_path / "x.parquet"
    write_table(path, {"e": list(vectors)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(InputError, re.escape(str(path)) + ": cannot be read as parquet", [path])


def test_inputs_of_unequal_dimension(tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", vectors[:, :4])
    refuse(UsageError, r"b.npy: 4 features per row, but .*a.npy has 6", [tmp_path])
