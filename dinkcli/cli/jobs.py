"""``dink dedup`` and ``dink sample``."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from dinkcli.cli import options as shared
from dinkcli.cli.console import ProgressLines, show_notes
from dinkcli.cli.options import clusters_option, input_option, output_option, run_option
from dinkcli.cli.paths import levels_of, load_model
from dinkcli.options import DedupOptions, SampleOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from dinkcli.assigning.layout import Layout

_MEMORY = run_option(
    None,
    "--memory",
    metavar="SIZE",
    help="How much memory rows may take, such as 2GB; a quarter of the machine by default. "
    "They are sorted by cluster into a temporary file.",
)
_AGAINST = input_option(
    None,
    metavar="OLD",
    help="Files of rows that are there already: rows that repeat one of them do not stay. "
    "May be given more than once.",
)


def dedup(
    *,
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
    against: list[str] | None = _AGAINST,
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
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
    job = _Job(model_path, inputs, output, rows, shown, memory)
    model, data, old = job.model, job.data, None
    if against is not None:
        old = replace(rows, ids=None, columns=None).open(model, against)

    import numpy as np

    from dinkcli.assigning.dedup import dedup as find
    from dinkcli.assigning.dedup import schema_of, written_rows
    from dinkcli.cli.paths import bad_rows_in

    with job.writing(schema_of(old is not None)) as (table, show):
        found = find(model, data, options, old, job.device, job.memory, show)
        bad = found.labels < 0
        seen = ~bad if rows.bad_rows == "skip" else np.ones(len(bad), bool)
        stay = found.kept & seen
        chosen = stay if keep_only else seen
        written = int(chosen.sum())
        job.destination.write(table, written, written_rows(data, found, chosen))
    summary: dict[str, Any] = {
        **job.destination.about(model, model_path),
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
    job.destination.tell(summary, sentence)


def sample(
    *,
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
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
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
    job = _Job(model_path, inputs, output, rows, shown, memory, sample_weight=sample_weight)
    from dinkcli.assigning.sample import COLUMNS, written_rows
    from dinkcli.assigning.sample import sample as draw

    with job.writing(COLUMNS) as (table, show):
        found = draw(job.model, job.data, options, job.device, job.memory, show)
        job.destination.write(table, len(found.rows), written_rows(job.data, found))
    summary: dict[str, Any] = {
        **job.destination.about(job.model, model_path),
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
    job.destination.tell(summary, sentence)


class _Job:
    """What a command begins with: the model, its inputs and the output, all of them checked."""

    def __init__(
        self,
        model_path: str,
        inputs: list[str],
        output: str | None,
        rows: shared.WrittenRows,
        shown: shared.TableOutput,
        memory: str | None,
        **references: Any,
    ):
        from dinkcli.cli.paths import Destination
        from dinkcli.data.memory import default_memory, parse_size

        self.destination = Destination(output, shown)
        self.memory = default_memory() if memory is None else parse_size(memory)
        self.model_path = model_path
        self.model = load_model(model_path, inputs, warns=True)
        self.data = rows.open(self.model, inputs, **references)
        show_notes(self.data, shown.quiet)

        from dinkcli.processes.device import resolve_device

        self.device = resolve_device(rows.device)

    @contextmanager
    def writing(
        self, columns: pa.Schema
    ) -> Iterator[tuple[Layout, Callable[[str, int, int], None]]]:
        """Yields the layout of the output, and a function that shows the steps it is told.

        Raises DinkError, before any work, where that output could not be written.
        """
        from dinkcli.assigning.layout import Layout
        from dinkcli.assigning.pipeline import metadata_of
        from dinkcli.assigning.writers import stream_writer

        metadata = metadata_of(self.model, self.model_path)
        layout = Layout(None, columns, self.data.columns.id, self.data.carried, metadata)
        with stream_writer(io.BytesIO(), layout, self.destination.encoding):
            pass
        self.destination.open()
        with ProgressLines(not self.destination.shows_progress) as lines:
            yield layout, lambda phase, done, total: lines.update(phase, done, total, "rows")
