"""``dink dedup`` and ``dink sample``."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from dinkcli.cli import options as shared
from dinkcli.cli.console import show_notes
from dinkcli.cli.options import clusters_option, output_option
from dinkcli.cli.paths import columns_of, levels_of, load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.options import DedupOptions, SampleOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from dinkcli.assigning.writers.base import Layout
    from dinkcli.cli.destination import Destination
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


def dedup(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_FILE,
    max_distance: float | None = clusters_option(
        None,
        help="The largest Euclidean distance of near-duplicates; between rows of norm 1 where the "
        "metric of the model is cosine. There, cosine similarities of 0.99, 0.95 and 0.9 are "
        "distances of 0.141, 0.316 (the default) and 0.447: sqrt(2 - 2 x similarity).",
        show_default=False,
    ),
    keep: str = clusters_option(
        "nearest",
        help="Which row of a group stays: the one nearest to its centre, the farthest, the "
        "first, or the one with the largest number in a column of that name.",
        choices="nearest farthest first",
    ),
    keep_only: bool = output_option(False, "--keep-only", help="Write only the rows that stay."),
    against: list[str] | None = shared.AGAINST,
    format: shared.OutputFormat = shared.OUTPUT_FORMAT,
    ids: list[str] | None = shared.IDS,
    columns: str | None = shared.CARRIED_COLUMNS,
    csv_safe: bool = shared.CSV_SAFE,
    memory: str | None = shared.JOB_MEMORY,
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    json_summary: bool = shared.JSON,
    json_file: str | None = shared.JSON_FILE,
    quiet: bool = shared.QUIET,
) -> None:
    """Find near-duplicates, and choose which rows stay.

    No pair is missed, also across the borders of clusters: each row is compared with all rows that
    can be near enough.

    Examples:
        dink dedup emb.dink.safetensors emb.npy -o groups.parquet
        dink dedup emb.dink.safetensors emb.parquet --max-distance 0.4 --keep-only -o unique.parquet
        dink dedup emb.dink.safetensors new.npy --against emb.npy -o new.csv
    """
    started = time.monotonic()
    options = DedupOptions(max_distance, keep)
    from dinkcli.cli.destination import Destination, bad_rows_in

    destination = Destination(output, format, csv_safe, json_summary, json_file)
    limit = _bytes_of(memory)
    wanted = columns_of(column, columns, ids=ids, dim=dim)
    model = load_model(model_path, inputs, warns=True)
    data = _open(model, inputs, wanted, bad_rows)
    show_notes(data, quiet)
    old = None
    if against is not None:
        old = _open(model, against, columns_of(column, dim=dim), bad_rows)

    import numpy as np

    from dinkcli.assigning.dedup import dedup as find
    from dinkcli.assigning.dedup import schema_of, written_rows
    from dinkcli.processes.device import resolve_device

    table = _table(destination, model, model_path, data, schema_of(old is not None))
    with _progress(quiet or json_summary or destination.output is None) as show:
        found = find(model, data, options, old, resolve_device(device), limit, show)
        bad = found.labels < 0
        seen = ~bad if bad_rows == "skip" else np.ones(len(bad), bool)
        stay = found.kept & seen
        rows = stay if keep_only else seen
        written = int(rows.sum())
        destination.write(table, written, written_rows(data, found, rows))
    summary: dict[str, Any] = {
        **destination.about(model, model_path),
        "written_rows": written,
        "rows": int(seen.sum()),
        "kept": int(stay.sum()),
        "removed": int((~found.kept).sum()),
        "groups": found.n_groups,
        "exact_repeats": found.n_exact,
        "old_rows": 0 if old is None else old.n_rows,
        "recall": 1.0,
        "compared_pairs": found.compared,
        "border_visits": found.visits,
        "bad_rows": int(bad.sum()),
        "seconds": round(time.monotonic() - started, 3),
    }
    sentence = (
        f"{output}: {summary['kept']} of {summary['rows']} rows stay, "
        f"{summary['removed']} near-duplicates go, from {summary['groups']} groups "
        f"({summary['exact_repeats']} exact repeats){bad_rows_in(summary)} "
        f"in {summary['seconds']:.1f} s"
    )
    destination.tell(summary, sentence, quiet, json_summary)


def sample(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    number: int | None = clusters_option(
        None, "-n", "--number", help="How many rows the sample is to have."
    ),
    output: str | None = shared.TABLE_FILE,
    by: Literal["balanced", "proportional", "prototypes", "diverse"] = clusters_option(
        "balanced",
        help="Equal shares of all clusters, shares in proportion to their sizes, or equal shares "
        "of the rows nearest to their centre, or of rows as unlike each other as possible.",
    ),
    quota: str | None = clusters_option(
        None,
        metavar="FILE",
        help="How many rows of each cluster, in place of -n: csv with the columns cluster and "
        'rows, or JSON such as {"0": 10, "7": 5}.',
    ),
    levels: str | None = clusters_option(
        None,
        metavar="A,B,...",
        help="Share equally among groups of clusters first: 10,100 shares among 10 groups, in "
        "each among its part of 100, and then among clusters.",
    ),
    seed: int = clusters_option(
        0, help="The seed of all random draws: the same seed, the same rows."
    ),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    format: shared.OutputFormat = shared.OUTPUT_FORMAT,
    ids: list[str] | None = shared.IDS,
    columns: str | None = shared.CARRIED_COLUMNS,
    csv_safe: bool = shared.CSV_SAFE,
    memory: str | None = shared.JOB_MEMORY,
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    json_summary: bool = shared.JSON,
    json_file: str | None = shared.JSON_FILE,
    quiet: bool = shared.QUIET,
) -> None:
    """Draw a sample in which all clusters have their share.

    It is the same whatever the order of the rows. Each row comes with the probability with which
    it is in such a sample.

    Examples:
        dink sample emb.dink.safetensors emb.npy -n 1000 -o sample.parquet
        dink sample emb.dink.safetensors emb.parquet -n 500 --by diverse --ids id
    """
    started = time.monotonic()
    weighted = sample_weight is not None
    options = SampleOptions(number, by, quota, levels_of(levels), weighted, seed)
    from dinkcli.cli.destination import Destination

    destination = Destination(output, format, csv_safe, json_summary, json_file)
    limit = _bytes_of(memory)
    wanted = columns_of(column, columns, ids=ids, dim=dim, sample_weight=sample_weight)
    model = load_model(model_path, inputs, warns=True)
    data = _open(model, inputs, wanted, bad_rows)
    show_notes(data, quiet)

    from dinkcli.assigning.sample import COLUMNS, written_rows
    from dinkcli.assigning.sample import sample as draw
    from dinkcli.processes.device import resolve_device

    table = _table(destination, model, model_path, data, COLUMNS)
    with _progress(quiet or json_summary or destination.output is None) as show:
        found = draw(model, data, options, resolve_device(device), limit, show)
        destination.write(table, len(found.rows), written_rows(data, found))
    summary: dict[str, Any] = {
        **destination.about(model, model_path),
        "written_rows": len(found.rows),
        "rows": int(found.sizes.sum()),
        "sample": len(found.rows),
        "by": by,
        "clusters_in_sample": int((found.shares > 0).sum()),
        "shares": found.shares.tolist(),
        "seconds": round(time.monotonic() - started, 3),
    }
    taken = found.shares[found.shares > 0]
    each = f"{taken.min()} to {taken.max()}" if taken.min() < taken.max() else taken.min()
    sentence = (
        f"{output}: {summary['sample']} of {summary['rows']} rows, {each} from each of "
        f"{summary['clusters_in_sample']} clusters, in {summary['seconds']:.1f} s"
    )
    destination.tell(summary, sentence, quiet, json_summary)


def _open(model: Model, inputs: list[str], wanted: Columns, bad_rows: str) -> DataSet:
    """The inputs, which fit the model and can be read more than once."""
    from dinkcli.data.inputs import open_data
    from dinkcli.data.spool import repeatable

    return model.rows_of(repeatable(open_data(inputs, model.as_trained(wanted), bad_rows)))


def _bytes_of(memory: str | None) -> int:
    """Bytes that the rows may take."""
    from dinkcli.data.memory import default_memory, parse_size

    return default_memory() if memory is None else parse_size(memory)


def _table(
    destination: Destination, model: Model, model_path: str, data: DataSet, columns: pa.Schema
) -> Layout:
    """The layout of an output; raises DinkError, before any work, where it could not be written."""
    from dinkcli.assigning.pipeline import metadata_of
    from dinkcli.assigning.writers.base import Layout

    metadata = metadata_of(model, model_path)
    layout = Layout(None, columns, data.columns.id, data.carried, metadata)
    destination.encoding.writer(io.BytesIO(), layout).close()
    destination.open()
    return layout


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows the steps that the function it yields is called with."""
    with ProgressLines(quiet) as lines:
        yield lambda phase, done, total: lines.update(phase, done, total, "rows")
