"""Remote files, from real servers on the loopback: HTTP with ranges, and S3."""

import http.server
import os
import threading
from functools import partial
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

import dinkcli
from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_data
from dinkcli.errors import ExtraError, InputError, UsageError


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Python's file server, with the one thing that readers need and it lacks."""

    sent = 0

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = self.translate_path(self.path)
        if "Range" not in self.headers or not os.path.isfile(path):
            return super().do_GET()
        size = os.path.getsize(path)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(size, int(last or size - 1) + 1)
        with open(path, "rb") as file:
            file.seek(start)
            body = file.read(stop - start)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        type(self).sent += len(body)

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)


@pytest.fixture
def web(tmp_path, vectors):
    np.save(tmp_path / "x.npy", vectors)
    text = pa.array(["x" * 20_000] * 500)
    pq.write_table(
        pa.table({"id": range(500), "e": list(vectors), "text": text}),
        tmp_path / "x.parquet",
        compression="none",
        use_dictionary=False,
        row_group_size=100,
    )
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in vectors))
    handler = partial(Ranges, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["x.npy", "x.parquet", "x.csv"])
def test_http(web, vectors, name):
    Ranges.sent = 0
    data = open_data([f"{web}/{name}"])
    found = np.concatenate([block.vectors for block in data.blocks(90)])
    np.testing.assert_allclose(found, vectors, rtol=1e-6)
    if name == "x.parquet":
        assert Ranges.sent < 2_000_000  # of 10 MB: the column of the texts is not fetched
    labels = dinkcli.assign(dinkcli.train(f"{web}/{name}", 3, device="cpu"), vectors)
    expected = dinkcli.assign(dinkcli.train(vectors, 3, device="cpu"), vectors)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_http_errors(web, monkeypatch):
    with pytest.raises(UsageError, match=r"none\.npy: no such file or folder"):
        open_data([f"{web}/none.npy"])
    with pytest.raises(InputError, match="cannot be reached: Protocol not known: gopher"):
        open_data(["gopher://x/y.npy"])
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ExtraError, match=r"needs the package fsspec: pip install .dinkcli.remote"):
        open_data([f"{web}/x.npy"])


@pytest.fixture(scope="module")
def bucket(vectors):
    """A bucket with a file and a hive-partitioned folder on an S3 server of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        place = f"{host}:{port}"
        s3 = pyarrow.fs.S3FileSystem(
            endpoint_override=place, scheme="http", allow_bucket_creation=True
        )
        s3.create_dir("bucket")
        with s3.open_output_stream("bucket/x.npy") as file:
            np.save(file, vectors)
        pq.write_to_dataset(
            pa.table({"e": list(vectors), "part": ["a"] * 200 + ["b"] * 300}),
            "bucket/hive",
            partition_cols=["part"],
            filesystem=s3,
        )
        query = f"?endpoint_override={quote(place)}&scheme=http"
        yield lambda key: f"s3://bucket/{key}{query}"
    server.stop()


@pytest.mark.slow
def test_s3(bucket, vectors):
    np.testing.assert_array_equal(open_data([bucket("x.npy")]).load_rows()[0], vectors)
    data = open_data([bucket("hive")], Columns(id="part"))
    np.testing.assert_array_equal(data.load_rows()[0], vectors)
    parts = [part for block in data.blocks(70) for part in block.carried["part"].to_pylist()]
    assert parts == ["a"] * 200 + ["b"] * 300
    np.testing.assert_array_equal(
        open_data([bucket("hive/part=b/*.parquet")]).load_rows()[0], vectors[200:]
    )
    with pytest.raises(UsageError, match=r"none\.npy.*: no such file or folder"):
        open_data([bucket("none.npy")])
