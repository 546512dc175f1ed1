"""Every line of docs/formats.md that writes a file is run; rows get the right labels and ids."""

import base64
import gzip
import io
import json
import re
import uuid
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, nearest_float64

import dinkcli
from dinkcli.models.model import Model

N, D, K = 50, 8, 4
PAGE = (ROOT / "docs" / "formats.md").read_text()
BLOCK = PAGE.split("## The line that writes it")[1].split("```python\n")[1].split("```")[0]
LINES = [part.split("\n", 1) for part in re.split(r"(?m)^# ", BLOCK)[1:]]
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
CENTERS = VECTORS[:K] * 0.5
WORDS = ['"', ",", "the", "12", "naïve", "#", "'s", *(f"word{i}" for i in range(N - 7))]
IDS = [9007199254740993 + 2 * i for i in range(N - 1)] + [18446744073709551615]
UUIDS = [uuid.UUID(int=i * 2**100 + i).bytes for i in range(N)]


def batch_line(row):
    answer = {"object": "list", "model": "m", "usage": {"prompt_tokens": 8}}
    data = [{"object": "embedding", "index": 0, "embedding": row["embedding"]}]
    response = {"status_code": 200, "request_id": "r", "body": answer | {"data": data}}
    return {"id": "b", "custom_id": f"text-{row['id']}", "response": response, "error": None}


def names():
    lists = [row.tolist() for row in VECTORS]
    texts = [f"text {i}, with a tab-less {{brace}}" for i in range(N)]
    frame = pd.DataFrame({"id": IDS, "text": texts, "embedding": lists})
    return {
        **{"np": np, "pd": pd, "pa": pa, "pq": pq, "h5py": h5py, "json": json, "gzip": gzip},
        **{"N": N, "D": D, "vectors": VECTORS, "words": WORDS, "uuids": UUIDS},
        **{"frame": frame, "rows": frame.to_dict("records"), "batch_line": batch_line},
        "ids": [str(i) for i in IDS],
        "encoded": [base64.b64encode(row.tobytes()).decode() for row in VECTORS],
    }


EXPECTED = {
    "id": [str(i) for i in IDS],
    "ids": [str(i) for i in IDS],
    "f0": [str(i) for i in IDS],
    "custom_id": [f"text-{i}" for i in IDS],
    "word": WORDS,
    "uuid": [each.hex() for each in UUIDS],
}


def test_there_are_lines():
    assert len(LINES) > 30


@pytest.mark.filterwarnings(
    "ignore:.*unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(("comment", "line"), LINES, ids=[comment for comment, _ in LINES])
def test_a_line(comment, line, invoke, monkeypatch):
    exec(line, names())
    path = next(name for name in re.findall(r'"([\w.]+)"', line) if Path(name).exists())
    options = [word for each in re.findall(r"`(--[^`]*)`", comment) for word in each.split()]
    Model(CENTERS, np.ones(K)).save("m")
    out = invoke("assign", "-q", *options, "m", path).stdout
    found = pd.read_csv(io.StringIO(out), dtype=str, keep_default_na=False)
    z = VECTORS.astype(np.float16) if "half" in path else VECTORS
    if path == "printed.csv":
        z = np.array([[float(x) for x in str(np.array(v.tolist()))[1:-1].split()] for v in VECTORS])
    np.testing.assert_array_equal(found["cluster"].astype(int), nearest_float64(z, CENTERS))
    name = found.columns[0]
    expected = EXPECTED.get(name, [str(i) for i in range(N)])
    if path == "bare.csv":
        expected = [str(i) for i in range(N)]
    assert found[name].to_list() == expected
    assert ("--ids" in options or "word" in path or "glove" in path) == (name != "row")
    told = json.loads(invoke("info", "--json", *_without_ids(options), path).stdout)
    assert (told["n_rows"], told["n_bad"]) == (N, 0)
    assert told["n_features"] == D or path == "bare.csv"


def _without_ids(options):
    return [o for i, o in enumerate(options) if "--ids" not in options[max(0, i - 1) : i + 1]]


def test_numbers_are_read_as_they_are(invoke):
    """Text in brackets gives the float32 of the same text in columns of its own."""
    frame = names()["frame"]
    frame.to_csv("lists.csv", index=False)
    pd.DataFrame(VECTORS).to_csv("wide.csv", index=False)
    models = []
    for path in ("lists.csv", "wide.csv"):
        models.append(dinkcli.train(path, K, device="cpu"))
    np.testing.assert_array_equal(models[0].cluster_centers, models[1].cluster_centers)
