"""The same labels in Ray Data, Spark, DuckDB and polars as from ``dink assign``."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dinkcli
from dinkcli import engines


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(path of a model, table of id and embedding with a null at row 7, expected labels)."""
    generator = np.random.default_rng(0)
    rows = (generator.integers(0, 5, (300, 1)) * 4 + generator.normal(size=(300, 3))).astype("f4")
    model = dinkcli.train(rows, 5, seed=0)
    folder = tmp_path_factory.mktemp("engines")
    model.save(folder / "model.safetensors")
    distances = ((rows[:, None].astype(float) - model.cluster_centers) ** 2).sum(2)
    expected = distances.argmin(1)
    expected[7] = -1
    vectors = [None if i == 7 else row.tolist() for i, row in enumerate(rows)]
    table = pa.table({"id": range(300), "embedding": pa.array(vectors, pa.list_(pa.float32()))})
    pq.write_table(table, folder / "rows.parquet")
    return folder, table, expected


def test_an_arrow_table_gets_a_column(case):
    folder, table, expected = case
    result = engines.ArrowAssigner(folder / "model.safetensors")(table)
    assert result.schema.field("cluster").type == pa.int32()
    assert (result["cluster"].to_numpy() == expected).all()
    nothing = table.slice(7, 1)
    assert engines.ArrowAssigner(folder / "model.safetensors")(nothing)["cluster"].to_pylist() == [
        -1
    ]


@pytest.mark.parametrize("kind", ["FLOAT[]", "FLOAT[3]", "DOUBLE[]"])
def test_duckdb(case, kind):
    duckdb = pytest.importorskip("duckdb")
    folder, _, expected = case
    connection = duckdb.connect()
    engines.register(connection, folder / "model.safetensors")
    found = connection.execute(
        f"select dink_assign(embedding::{kind}) from read_parquet(?) order by id",
        [str(folder / "rows.parquet")],
    ).fetchall()
    assert [label for (label,) in found] == expected.tolist()


def test_polars(case):
    polars = pytest.importorskip("polars")
    folder, table, expected = case
    expression = engines.polars_expression(folder / "model.safetensors")
    frame = polars.from_arrow(table)
    for result in (frame.with_columns(expression), frame.lazy().with_columns(expression).collect()):
        assert result["cluster"].dtype == polars.Int32
        assert (result["cluster"].to_numpy() == expected).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Ray itself
def test_ray(case):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    folder, _, expected = case
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = ray.data.read_parquet(str(folder / "rows.parquet")).map_batches(
            engines.ArrowAssigner,
            fn_constructor_args=[str(folder / "model.safetensors")],
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        labels = {row["id"]: row["cluster"] for row in found.iter_rows()}
    finally:
        ray.shutdown()
    assert [labels[i] for i in range(300)] == expected.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_training_under_ray(tmp_path):
    """Two workers of Ray Train end in the centres of one process."""
    ray = pytest.importorskip("ray")
    ray_torch = pytest.importorskip("ray.train.torch")
    rows = np.random.default_rng(0).normal(size=(3000, 8)).astype("f4")
    rows[:, 0] += np.arange(3000) % 5 * 8
    np.save(tmp_path / "rows.npy", rows)
    config = {"inputs": str(tmp_path / "rows.npy"), "output": str(tmp_path / "m.safetensors")}
    config |= {"n_clusters": 5, "seed": 0, "device": "cpu"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        workers = ray.train.ScalingConfig(num_workers=2)
        ray_torch.TorchTrainer(
            engines.train_loop, train_loop_config=config, scaling_config=workers
        ).fit()
    finally:
        ray.shutdown()
    alone = dinkcli.train(config["inputs"], 5, seed=0, device="cpu")
    found = dinkcli.load(config["output"])
    np.testing.assert_allclose(found.cluster_centers, alone.cluster_centers, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_spark(case, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    folder, _, expected = case
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", False)
    session = spark.getOrCreate()
    try:
        table = session.read.parquet(str(folder / "rows.parquet"))
        schema = "id long, embedding array<float>, cluster int"
        assign = engines.map_in_arrow(str(folder / "model.safetensors"))
        labels = {row.id: row.cluster for row in table.mapInArrow(assign, schema).collect()}
    finally:
        session.stop()
    assert [labels[i] for i in range(300)] == expected.tolist()
