"""A part of a data set is what slicing the whole gives, and no more of the files is read."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinkcli.data.base import Columns
from dinkcli.data.formats.raw import RawReader
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError

N = 1000
RANGES = [(0, N), (0, 1), (999, N), (333, 334), (320, 480), (250, 750), (399, 401), (500, 500)]
RANGES += [(0, 0), (N, N), (17, 983)]
KINDS = ["npy", "fortran", "npys", "parquet", "parquets", "arrow", "arrows"]


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)


def table(rows, first=0):
    names = [f"n{i}" for i in range(first, first + len(rows))]
    return pa.table({"id": names, "v": pa.array(list(rows), pa.list_(pa.float32()))})


def write(folder, kind, rows):
    """``rows`` as that kind of input: one file, or several of unequal length."""
    if kind in ("npy", "fortran"):
        np.save(folder / "x.npy", rows if kind == "npy" else np.asfortranarray(rows))
        return [folder / "x.npy"]
    bounds = [0, 400, 401, N] if kind in ("npys", "parquets") else [0, N]
    paths = []
    for first, stop in itertools.pairwise(bounds):
        path = folder / f"part-{first:04d}"
        part = table(rows[first:stop], first)
        if kind == "npys":
            path = path.with_suffix(".npy")
            np.save(path, rows[first:stop])
        elif kind.startswith("parquet"):
            pq.write_table(part, path, row_group_size=70)
        else:
            new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
            with new(path, part.schema) as writer:
                writer.write_table(part, max_chunksize=90)
        paths.append(path)
    return paths


def opened(folder, kind, rows, **options):
    has_ids = kind.startswith(("parquet", "arrow"))
    columns = Columns(id="id" if has_ids else None)
    return open_data([str(path) for path in write(folder, kind, rows)], columns, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 64, 70, 5000])
def test_blocks_are_slices_of_the_whole(tmp_path, rows, kind, size):
    data = opened(tmp_path, kind, rows)
    for first, stop in RANGES:
        part = data.part(first, stop)
        assert (part.n_rows, part.known_rows) == (stop - first, stop - first)
        assert part.fingerprint() == data.fingerprint()
        blocks = list(part.blocks(size))
        numbers = [block.start + i for block in blocks for i in range(len(block))]
        assert numbers == list(range(first, stop))
        assert all(0 < len(block) <= size for block in blocks)
        found = np.concatenate([np.empty((0, 6)), *(block.vectors for block in blocks)])
        np.testing.assert_array_equal(found, rows[first:stop])
        if part.carried.names:
            ids = [name for block in blocks for name in block.carried["id"].to_pylist()]
            assert ids == [f"n{i}" for i in range(first, stop)]
        loaded, good = part.load_rows()
        assert good is None
        np.testing.assert_array_equal(loaded, rows[first:stop])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [64, 150])
def test_limits_leave_the_other_blocks_as_they_are(tmp_path, rows, kind, size):
    data = opened(tmp_path, kind, rows)
    everything = [(block.start, block.vectors.copy()) for block in data.blocks(size)]
    for since, until in RANGES:
        expected = [
            (start, part)
            for start, part in everything
            if start + len(part) > since and start < until and since < until
        ]
        found = [(b.start, b.vectors.copy()) for b in data.blocks(size, since, until)]
        assert [start for start, _ in found] == [start for start, _ in expected]
        for (_, one), (_, other) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["npys", "parquets", "arrow"])
def test_a_part_of_a_part_and_ranges_outside(tmp_path, rows, kind):
    part = opened(tmp_path, kind, rows).part(100, 900)
    np.testing.assert_array_equal(part.part(390, 410).load_rows()[0], rows[390:410])
    for first, stop in ((99, 200), (200, 901), (300, 299)):
        with pytest.raises(ValueError, match=r"of \[100, 900\)"):
            part.part(first, stop)
    np.testing.assert_array_equal(part.whole.load_rows()[0], rows)


@pytest.mark.parametrize("kind", ["npy", "npys", "parquets", "arrow"])
@pytest.mark.parametrize("bad_rows", ["skip", "label"])
def test_bad_rows_of_a_part(tmp_path, rows, kind, bad_rows):
    bad = [0, 70, 399, 400, 401, 640, 999]
    rows[bad, 2] = np.nan
    data = opened(tmp_path, kind, rows, bad_rows=bad_rows)
    for first, stop in RANGES:
        part = data.part(first, stop)
        here = [row for row in range(first, stop) if row not in bad]
        loaded, good = part.load_rows()
        np.testing.assert_array_equal(loaded, rows[here])
        assert (good is None) == (len(here) == stop - first)
        if good is not None:
            np.testing.assert_array_equal(first + good, here)
        found = [
            b.start + int(i)
            for b in part.blocks(64)
            if b.bad is not None
            for i in np.flatnonzero(b.bad)
        ]
        assert found == [row for row in bad if first <= row < stop]


@pytest.mark.parametrize("kind", ["npys", "parquets"])
def test_the_message_counts_in_the_file_and_to_the_end_of_the_part(tmp_path, rows, kind):
    rows[[3, 399, 640, 641, 999], 2] = np.inf
    data = opened(tmp_path, kind, rows)
    assert len(list(data.part(4, 399).blocks(64))) > 1
    with pytest.raises(InputError, match=r"part-0000.*: row 399 .*3 bad rows .*process's share\)"):
        list(data.part(4, 642).blocks(64))
    with pytest.raises(InputError, match=r"part-0401.*: row 239 .*2 bad rows .*process's share\)"):
        list(data.part(500, 700).blocks(64))
    with pytest.raises(InputError, match=r"part-0000.*: row 3 .*5 bad rows .*to the end\)"):
        list(data.blocks(64))
    # A null before the part shares a block with the first bad row in it.
    one = table(rows).set_column(
        1, "v", pa.array([[1.0, 2.0], None, [1.0, 2.0], None, [3.0, 4.0]] * 200)
    )
    pq.write_table(one, tmp_path / "nulls.parquet")
    nulls = open_data([str(tmp_path / "nulls.parquet")])
    with pytest.raises(InputError, match=r"row 3 .*1 such row"):
        list(nulls.part(2, 5).blocks(64))


def test_only_what_is_needed_is_read(tmp_path, rows, monkeypatch):
    data = opened(tmp_path, "parquets", rows)
    first_groups, iter_batches = [], pq.ParquetFile.iter_batches

    def spy(self, rows, groups, columns):
        first_groups.append((self.metadata.num_rows, groups[0]))
        return iter_batches(self, rows, groups, columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert data.part(700, 720).load_rows()[0].shape == (20, 6)
    assert first_groups == [(599, 0)]  # the grid of one block of 4 MB begins there
    first_groups.clear()
    list(data.part(700, 720).blocks(20))
    assert first_groups == [(599, 4)]

    (tmp_path / "npy").mkdir()
    data = opened(tmp_path / "npy", "npys", rows)
    seen = []
    read = RawReader._read
    monkeypatch.setattr(
        RawReader,
        "_read",
        lambda self, file, a, b: (seen.append((self.path[-8:], a, b)), read(self, file, a, b))[1],
    )
    list(data.part(700, 720).blocks(20))
    assert seen == [("0401.npy", 280, 300), ("0401.npy", 300, 320)]


def test_texts_have_no_parts_until_they_are_copied(tmp_path, rows):
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", fmt="%.9g")
    data = open_data([str(tmp_path / "x.csv")])
    with pytest.raises(ValueError, match="not known"):
        data.part(0, 10)
    np.testing.assert_array_equal(data.repeatable().part(10, 30).load_rows()[0], rows[10:30])
