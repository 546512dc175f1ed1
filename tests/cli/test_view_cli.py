"""inspect, evaluate, sweep, report and -k auto through the real command line."""

import json
import re
import subprocess
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, environment, loads_torch, python
from sklearn.metrics import adjusted_rand_score

import dinkcli

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """x.parquet: ids, hostile texts, true classes (some null) and vectors; m: a model of it."""
    folder = tmp_path_factory.mktemp("view")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    z = (np.eye(3, 5)[truth] * 9 + rng.normal(size=(300, 5))).astype(np.float32)
    table = {
        "id": [f"row-{i}" for i in range(300)],
        "text": [f"[bold]a\x1b[31m{'xyz'[j]}{i}" for i, j in enumerate(truth)],
        "topic": pa.array([None if i < 5 else f"t{j}" for i, j in enumerate(truth)]),
        "v": pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 5),
    }
    pq.write_table(pa.table(table), folder / "x.parquet")
    np.save(folder / "y.npy", truth)
    np.save(folder / "noise.npy", rng.random((300, 4)).astype(np.float32))
    dinkcli.train(folder / "x.parquet", 3, device="cpu").save(folder / "m")
    return folder


def test_inspect_shows_a_model_without_its_data(dink, folder):
    shown = dink("inspect", folder / "m").stdout
    sizes = dinkcli.load(folder / "m").cluster_sizes
    assert "3 clusters of 5 features" in shown
    assert "300 rows (float32) of x.parquet" in shown
    for part in ("spread: the root of", "nearest pairs of clusters", "0 and 1"):
        assert part in shown
    found = re.findall(r"^ +(\d) +(\d+) +\d+\.\d% +[\d.]+ +(█+)", shown, re.MULTILINE)
    assert [int(size) for _, size, _ in found] == sorted(sizes.astype(int).tolist())[::-1]
    assert len(found[0][2]) == 40
    assert "\x1b" not in shown


def test_inspect_of_a_model_imports_no_torch(folder):
    assert not loads_torch("inspect", folder / "m")


def test_inspect_with_rows_shows_the_nearest(dink, folder):
    result = dink(
        "inspect", folder / "m", folder / "x.parquet", "--ids", "id", "--json",
        "--exemplars", 4, "--texts", "text",
    )  # fmt: skip
    document = json.loads(result.stdout)
    model = dinkcli.load(folder / "m")
    rows = pq.read_table(folder / "x.parquet")
    z = np.stack(rows["v"].to_numpy()).astype(float)
    assert result.stderr == ""
    assert document["training"] == model.training
    for j, cluster in enumerate(document["clusters"]):
        distances = np.linalg.norm(z - model.cluster_centers[j].astype(float), axis=1)
        nearest = distances.argsort()[:4]
        assert [near["row"] for near in cluster["exemplars"]] == nearest.tolist()
        assert [near["id"] for near in cluster["exemplars"]] == [f"row-{i}" for i in nearest]
        assert cluster["exemplars"][0]["distance"] == pytest.approx(distances.min(), rel=1e-5)
    shown = dink("inspect", folder / "m", folder / "x.parquet", "--texts", "text").stdout
    assert "[bold]a\\x1b[31m" in shown
    assert "\x1b" not in shown


def test_output_survives_a_narrow_encoding_and_a_closed_pipe(dink, folder):
    env = {**environment(), "PYTHONIOENCODING": "ascii"}
    shown = dink("inspect", folder / "m", env=env).stdout
    assert shown.isascii() and "####" in shown
    line = f"{python()} -m dinkcli inspect {folder / 'm'} | head -n 1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    assert result.stdout.splitlines()[-1] in ("0", "141")


def test_evaluate_with_labels_of_a_column_and_of_a_file(dink, folder):
    result = dink("evaluate", folder / "m", folder / "x.parquet", "--labels", "topic")
    assert "accuracy (ACC)" in result.stdout and "1.0000" in result.stdout
    assert "5 rows without a label are left out" in result.stderr
    result = dink(
        "evaluate", folder / "m", folder / "x.parquet", "--labels", folder / "y.npy", "--json"
    )
    document = json.loads(result.stdout)
    truth = np.load(folder / "y.npy")
    labels = dinkcli.assign(folder / "m", folder / "x.parquet")
    assert document["agreement"]["adjusted_rand_index"] == adjusted_rand_score(truth, labels)
    counts = np.array(document["confusion"]["counts"])
    assert document["confusion"]["classes"] == [0, 1, 2]
    for i in range(3):
        np.testing.assert_array_equal(counts[i], np.bincount(labels[truth == i], minlength=3))
    assert "without" not in dink("evaluate", folder / "m", folder / "x.parquet", "-q").stderr


def test_evaluate_refuses_clearly(dink, folder):
    m, x = folder / "m", folder / "x.parquet"
    both = dink("evaluate", m, x, "--labels", folder / "y.npy", "--labels", "id", code=2)
    assert "--labels id: no such file" in both.stderr
    nope = dink("evaluate", m, x, "--labels", "nope", code=2)
    assert "--labels nope: no such file, and no such column" in nope.stderr
    vectors = dink("evaluate", m, x, "--labels", "v", "--column", "v", code=2)
    assert "expected numbers, text or booleans" in vectors.stderr
    assert vectors.stdout == ""
    wrong = dink("evaluate", m, SAMPLES / "digits.npy", code=2)
    assert "64 features per row, but the model was trained on 5" in wrong.stderr


def test_sweep_and_auto(dink, folder):
    result = dink("sweep", folder / "x.parquet", "-k", "2:20")
    assert result.stdout.startswith("K = 3: two halves of the data agree")
    assert re.search(r"^ +> 3 ", result.stdout, re.MULTILINE)
    document = json.loads(dink("sweep", folder / "noise.npy", "-k", "2,4,8", "--json").stdout)
    assert document["n_clusters"] is None
    assert [c["n_clusters"] for c in document["candidates"]] == [2, 4, 8]
    shown = dink("sweep", folder / "noise.npy", "-k", "2:20", "-q").stdout
    (k,) = re.findall(r"^no structure: .* K = (\d+) is as good as any", shown)
    assert re.search(rf"^ +> {k} ", shown, re.MULTILINE)
    for word in ("silhouette: how well rows fit", "stability: how alike the clusters of"):
        assert word in shown
    np.save(folder / "few.npy", np.random.default_rng(0).random((30, 4)).astype(np.float32))
    few = dink("sweep", folder / "few.npy")
    assert "Note: -k 2:100: tries at most 15, with two rows for each cluster" in few.stderr
    assert re.search(r"^ +(> )?15 ", few.stdout, re.MULTILINE)
    result = dink("train", folder / "x.parquet", "-k", "auto", "-o", "auto")
    assert "3 clusters in" in result.stderr
    result = dink("train", folder / "x.parquet", "-k", "2:9", "-o", "ranged")
    assert "K = 3: two halves of the data agree" in result.stderr
    result = dink("train", folder / "noise.npy", "-k", "clear", code=1)
    assert "no clear K: no structure: rows are no nearer to clusters" in result.stderr
    assert result.stdout == ""
    result = dink("train", folder / "noise.npy", "-k", "auto")
    (k,) = re.findall(r"^no structure: .* K = (\d+) is as", result.stderr, re.MULTILINE)
    assert f"{k} clusters in" in result.stderr
    assert (
        "expected a number of clusters, auto, clear, or a range such as 5:300"
        in dink("train", folder / "noise.npy", "-k", "some", code=2).stderr
    )
    assert "-k 9:2: expected numbers" in dink("sweep", "x", "-k", "9:2", code=2).stderr


def test_report_writes_one_file_whole_or_not_at_all(dink, folder, tmp_path):
    m, x = folder / "m", folder / "x.parquet"
    result = dink("report", m, x, "--ids", "id", "-o", "r.html")
    assert re.search(r"r.html: 300 rows, \d.\d MB", result.stderr)
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (
        "suffix .pdf, expected one of .html, .svg"
        in dink("report", m, x, "-o", "r.pdf", code=2).stderr
    )
    assert (
        "--texts nope: no such file, and no such column"
        in dink("report", m, x, "-o", "n.html", "--texts", "nope", code=2).stderr
    )
    assert (
        "'x' is not one of 'neighbours', 'pca', 'umap'"
        in dink("report", m, x, "-o", "n.html", "--map", "x", code=2).stderr
    )
    assert (
        "--columns nope: no such column in"
        in dink("report", m, x, "-o", "n.html", "--columns", "nope", code=2).stderr
    )
    assert not (tmp_path / "n.html").exists()
    result = dink("report", m, x, "--columns", "id", "--title", "A < B", "-o", "map.svg")
    assert re.search(r"map.svg: 300 rows, \d.\d MB", result.stderr)
    drawn = ElementTree.parse(tmp_path / "map.svg")
    assert drawn.findtext("{http://www.w3.org/2000/svg}text") == "A < B"


@pytest.mark.parametrize(
    ("line", "module", "arguments"),
    [
        ("'dinkcli[umap]'", "umap", ["report", "m", "no.npy", "-o", "r.html", "--map", "umap"]),
    ],
)
def test_a_missing_package_is_named_before_anything_is_read(folder, line, module, arguments):
    code = (
        "import sys, types\n"
        f"sys.modules['{module}'] = None\n"
        "from dinkcli.cli import main\n"
        f"sys.argv = ['dink', *{arguments!r}]\n"
        "main()"
    )
    result = subprocess.run(
        [python(), "-c", code], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.endswith(f"needs the package {module}: pip install {line}\n")


@pytest.fixture(scope="module")
def bad(folder):
    """bad.parquet: the rows of x.parquet with five bad ones among them; numbers of the others."""
    table = pq.read_table(folder / "x.parquet")
    where = [0, 7, 150, 151, 304]
    kept = np.delete(np.arange(305), where)
    source = np.zeros(305, np.int64)
    source[kept] = np.arange(300)
    table = table.take(pa.array(source))
    vectors = table["v"].to_pylist()
    for row in where:
        vectors[row] = None
    vectors[150] = [1, float("nan"), 3, 4, 5]
    column = pa.array(vectors, table.schema.field("v").type)
    pq.write_table(table.set_column(3, "v", column), folder / "bad.parquet", row_group_size=7)
    return kept


@pytest.mark.parametrize("how", ["skip", "label"])
def test_bad_rows_are_left_out_of_every_view(dink, folder, bad, how):
    flags = ["--bad-rows", how]
    labelled = [folder / "m", "--labels", "topic", "--json"]
    expected = json.loads(dink("evaluate", *labelled, folder / "x.parquet").stdout)
    found = json.loads(dink("evaluate", *labelled, folder / "bad.parquet", *flags).stdout)
    assert (expected.pop("bad_rows"), found.pop("bad_rows")) == (0, 5)
    assert found.keys() == expected.keys()
    assert found["confusion"] == expected["confusion"]
    assert found["sizes"] == expected["sizes"]
    assert found["inertia"] == pytest.approx(expected["inertia"])
    assert found["davies_bouldin"] == pytest.approx(expected["davies_bouldin"])

    named = [folder / "m", "--ids", "id", "--json"]
    expected = json.loads(dink("inspect", *named, folder / "x.parquet").stdout)
    found = json.loads(dink("inspect", *named, folder / "bad.parquet", *flags).stdout)
    assert found["bad_rows"] == 5
    for here, there in zip(found["clusters"], expected["clusters"], strict=True):
        assert [(e["row"], e["id"]) for e in here["exemplars"]] == [
            (bad[e["row"]], e["id"]) for e in there["exemplars"]
        ]

    expected = json.loads(dink("sweep", folder / "x.parquet", "-k", "2,3", "--json").stdout)
    found = json.loads(dink("sweep", folder / "bad.parquet", "-k", "2,3", "--json", *flags).stdout)
    assert (expected.pop("bad_rows"), found.pop("bad_rows")) == (0, 5)
    assert found == expected


def test_bad_rows_are_counted_for_people_and_stop_by_default(dink, folder, bad, tmp_path):
    skip = ["--bad-rows", "skip"]
    report = ["report", folder / "m", folder / "bad.parquet", "--ids", "id", "-o", "r.html"]
    assert "305 rows, 5 bad rows left out" in dink(*report, *skip).stderr
    page = (tmp_path / "r.html").read_text()
    assert "300 rows in 3 clusters (5 bad rows left out)" in page
    for command in (
        ["evaluate", folder / "m", folder / "bad.parquet"],
        ["inspect", folder / "m", folder / "bad.parquet"],
        ["sweep", folder / "bad.parquet", "-k", "2,3"],
    ):
        assert "bad rows left out: 5" in dink(*command, *skip).stderr
        refused = dink(*command, code=1).stderr
        assert "bad.parquet: row 0: column 'v' is null" in refused
        assert "5 bad rows" in refused
    np.save(tmp_path / "nan.npy", np.full((9, 5), np.nan, np.float32))
    refused = dink("evaluate", folder / "m", "nan.npy", *skip, code=1).stderr
    assert "nan.npy: all 9 rows are bad" in refused


def test_a_row_without_direction_is_bad_under_cosine(dink, tmp_path):
    z = np.eye(3, 4, dtype=np.float32).repeat(5, 0)
    np.save(tmp_path / "x.npy", z)
    dinkcli.train(z, 3, metric="cosine", device="cpu").save(tmp_path / "m")
    z[4] = 0
    np.save(tmp_path / "zero.npy", z)
    refused = dink("evaluate", "m", "zero.npy", code=1).stderr
    assert "zero.npy: row 4 has norm 0, which has no direction" in refused
    found = json.loads(dink("evaluate", "m", "zero.npy", "--bad-rows", "skip", "--json").stdout)
    assert (found["rows"], found["bad_rows"]) == (14, 1)
