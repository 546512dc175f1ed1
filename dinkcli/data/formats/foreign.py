"""Files that dink does not read: what they are, and the line of Python that makes them readable."""

from __future__ import annotations

import codecs
import os
import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from dinkcli.errors import InputError

if TYPE_CHECKING:
    from dinkcli.data.files import Source

_SAVE = "np.save('embeddings.npy', {})"
_TO_PARQUET = "{}.to_parquet('embeddings.parquet')"
_PICKLE = (
    "a Python pickle (also joblib, older PyTorch), which dink never loads, for it may run code; "
    "if you trust it, convert it: import pickle, numpy as np; "
    + _SAVE.format("np.asarray(pickle.load(open({name!r}, 'rb')), dtype='float32')")
)
_EXCEL = "import pandas as pd; " + _TO_PARQUET.format("pd.read_excel({name!r})")
_ZARR = "import zarr, numpy as np; " + _SAVE.format("zarr.open({name!r})['NAME'][:]")
# What a file, a member of a zip file, or what lies in a folder begins with or is called.
_MAGICS = {
    rb"ORC": "an ORC file; convert it: import pyarrow.orc, pyarrow.parquet as pq; "
    "pq.write_table(pyarrow.orc.read_table({name!r}), 'embeddings.parquet')",
    rb"FEA1": "a Feather 1 file; convert it: import pandas as pd; "
    + _TO_PARQUET.format("pd.read_feather({name!r})"),
    rb"SQLite format 3\0": "an SQLite database; convert it: import sqlite3, pandas as pd; "
    + _TO_PARQUET.format("pd.read_sql('select * from TABLE', sqlite3.connect({name!r}))"),
    rb"I[wxHLVBP][A-Za-z0-9]{2}": "a faiss index; convert it: import faiss, numpy as np; "
    "index = faiss.read_index({name!r}); " + _SAVE.format("index.reconstruct_n(0, index.ntotal)"),
    rb"\xd0\xcf\x11\xe0": f"an old Excel file; convert it: {_EXCEL}",
    rb"Obj\x01": "an Avro file; convert it: import polars as pl; "
    "pl.read_avro({name!r}).write_parquet('embeddings.parquet')",
    rb"MATLAB 5\.0": "a MATLAB file; convert it: import scipy.io, numpy as np; "
    + _SAVE.format("scipy.io.loadmat({name!r})['NAME']"),
    rb".{8}DUCK": "a DuckDB database; convert it: duckdb {name} "
    "\"copy (select * from TABLE) to 'embeddings.parquet'\"",
    rb"\x80[\x02-\x05]": _PICKLE,
    rb"(\(lp|\(dp|c[a-z_.]+\n|\]q|\}q)": _PICKLE,
    rb"GGUF": "a GGUF model; embed your texts with it, and save the vectors as npy",
    rb"%PDF": "a PDF; embed its text first, and save the vectors as npy",
    rb"\x89PNG|\xff\xd8\xff|GIF8": "an image; embed your images first, and save the vectors as npy",
}
# Text that could be taken for rows of numbers.
_TEXTS = {
    rb"(?i)(%[^\n]*\n\s*)*@relation\s": "an ARFF file; convert it: import pandas as pd, "
    "scipy.io.arff; " + _TO_PARQUET.format("pd.DataFrame(scipy.io.arff.loadarff({name!r})[0])"),
    rb"%%MatrixMarket": "a Matrix Market file; convert it (.toarray() where it is sparse): "
    "import numpy as np, scipy.io; " + _SAVE.format("scipy.io.mmread({name!r})"),
    rb"[-+\d.]+( \d+:[-+\d.eE]+)+\s": "a libsvm file; convert it: import numpy as np, "
    "sklearn.datasets; "
    + _SAVE.format("sklearn.datasets.load_svmlight_file({name!r})[0].toarray()"),
}
_RAW = (
    "it looks like raw {kind} numbers, and nothing says how many make a row; convert it, with D "
    "for the dimension: import numpy as np; "
    + _SAVE.format("np.fromfile({name!r}, '{kind}').reshape(-1, D)")
)
_LATIN = "text that is not UTF-8; convert it: iconv -f latin1 -t utf-8 {name} > utf8{suffix}"
_ZIPS = {
    r"(^|/)data\.pkl$": "a PyTorch file, a pickle, which dink never loads; convert it: "
    "import torch, numpy as np; "
    + _SAVE.format("torch.load({name!r}, weights_only=True).float().numpy()"),
    r"^xl/": f"an Excel file; convert it: {_EXCEL}",
    r"(^|/)(\.zarray|\.zgroup|zarr\.json)$": f"a zipped Zarr store; convert it: {_ZARR}",
    r"^indptr\.npy$": "a sparse matrix of SciPy; write all of its numbers: import numpy as np, "
    "scipy.sparse; " + _SAVE.format("scipy.sparse.load_npz({name!r}).toarray()"),
    r"\.(csv|tsv|jsonl?|parquet|txt|vec)$": "a zip file; unpack it: unzip {name}",
}
_FOLDERS = {
    (".zarray", ".zgroup", ".zattrs", "zarr.json"): f"a Zarr store; convert it: {_ZARR}",
    ("_versions", "_latest.manifest"): "a Lance dataset; convert it: "
    "import lance, pyarrow.parquet as pq; "
    "pq.write_table(lance.dataset({name!r}).to_table(), 'embeddings.parquet')",
}


def named(head: bytes, source: Source) -> str | None:
    """What a file is by its first bytes and what to do, or None for what nobody knows."""
    for magic, line in _MAGICS.items():
        if re.match(magic, head, re.S):
            return line.format(name=source.name)
    if source.name.lower().endswith((".pkl", ".pickle", ".joblib")):
        return _PICKLE.format(name=source.name)
    plain = not any(byte < 9 or 13 < byte < 32 for byte in head)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        if plain:
            return None
    except UnicodeDecodeError:
        pass
    for kind, size in (("float32", 4), ("float64", 8), ("float16", 2)):
        if source.n_bytes % size == 0 and _like_numbers(head[: len(head) // size * size], kind):
            return _RAW.format(kind=kind, name=source.name)
    suffix = os.path.splitext(source.name)[1]
    return _LATIN.format(name=source.name, suffix=suffix) if plain else None


def _like_numbers(head: bytes, kind: str) -> bool:
    """Whether bytes without a header are numbers: as such all of them are of common sizes."""
    with np.errstate(all="ignore"):
        values = np.abs(np.frombuffer(head, kind).astype(np.float64))
    nonzero = values[values > 0]
    return (
        len(values) >= (512 if kind == "float16" else 16)  # most bytes are some float16
        and bool(np.isfinite(values).all())
        and len(nonzero) >= len(values) / 2
        and bool(((nonzero > 1e-7) & (nonzero < 1e7)).all())
    )


def refuse_foreign_text(start: bytes, name: str) -> None:
    """Raises InputError for text of other tools, by how it begins."""
    for magic, line in _TEXTS.items():
        if re.match(magic, start):
            raise InputError(f"{name}: {line.format(name=name)}")


def named_zip(archive: zipfile.ZipFile, name: str) -> str | None:
    """What a zip file without arrays is."""
    for pattern, line in _ZIPS.items():
        if any(re.search(pattern, member) for member in archive.namelist()):
            return line.format(name=name)
    return None


def named_folder(path: str) -> str | None:
    """What a folder is that holds files of some other format, or None."""
    for marks, line in _FOLDERS.items():
        if any(os.path.exists(os.path.join(path, mark)) for mark in marks):
            return line.format(name=path)
    return None
