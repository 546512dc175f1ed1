"""``dink dedup`` and ``dink sample``."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
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

    from dinkcli.assigning.dedup import Duplicates
    from dinkcli.assigning.layout import Layout
    from dinkcli.assigning.sample import Sample

_MEMORY = run_option(
    None,
    "--memory SIZE",
    help="How much memory rows may take, such as 2GB; a quarter of the machine by default. "
    "They are sorted by cluster into a temporary file.",
)


def dedup(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_FILE,
    max_distance: float | None = clusters_option(None, show_default=False),
    keep: str = clusters_option("nearest", choices="nearest farthest first"),
    keep_only: bool = output_option(False, "--keep-only"),
    against: list[str] | None = input_option(None, "OLD"),
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
) -> None:
    """Find near-duplicates, and choose which rows stay.

    No pair is missed, also across the borders of clusters: each row is compared with all rows that
    can be near enough.

    Args:
        max_distance: The largest Euclidean distance of near-duplicates; between rows of norm 1
            where the metric of the model is cosine. There, cosine similarities of 0.99, 0.95 and
            0.9 are distances of 0.141, 0.316 (the default) and 0.447: sqrt(2 - 2 x similarity).
        keep: Which row of a group stays: the one nearest to its centre, the farthest, the first, or
            the one with the largest number in a column or a file.
        keep_only: Write only the rows that stay.
        against: Files of rows that are there already: rows that repeat one of them do not stay. May
            be given more than once.

    Examples:
        dink dedup emb.dink.safetensors emb.npy -o groups.parquet
        dink dedup emb.dink.safetensors emb.parquet --max-distance 0.4 --keep-only -o unique.parquet
        dink dedup emb.dink.safetensors new.npy --against emb.npy -o new.csv
    """
    column = DedupOptions(max_distance, keep).column
    job = _Job(model_path, inputs, output, rows, shown, memory, keep=column)
    old = None
    if against is not None:
        old = replace(rows, ids=None, columns=None).open(job.model, against)

    from dinkcli.assigning.dedup import dedup as core
    from dinkcli.assigning.dedup import schema_of

    with job.writing(schema_of(old is not None)) as (layout, options):
        result = core(
            job.model, job.data, max_distance=max_distance, keep=keep, against=old, **options
        )
        written = int((result.stay if keep_only else result.seen).sum())
        job.destination.write(layout, written, result.written(keep_only))
    job.tell(result, written)


def sample(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    number: int | None = clusters_option(None, "-n --number"),
    output: str | None = shared.TABLE_FILE,
    by: Literal["balanced", "proportional", "prototypes", "diverse"] = clusters_option("balanced"),
    quota: str | None = clusters_option(None, "FILE"),
    levels: str | None = clusters_option(None, "A,B,..."),
    seed: int = clusters_option(0),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
) -> None:
    """Draw a sample in which all clusters have their share.

    It is the same whatever the order of the rows. Each row comes with the probability with which
    it is in such a sample.

    Args:
        number: How many rows the sample is to have.
        by: Equal shares of all clusters, shares in proportion to their sizes, or equal shares of
            the rows nearest to their centre, or of rows as unlike each other as possible.
        quota: How many rows of each cluster, in place of -n: csv with the columns cluster and rows,
            or JSON such as {"0": 10, "7": 5}.
        levels: Share equally among groups of clusters first: 10,100 shares among 10 groups, in each
            among its part of 100, and then among clusters.
        seed: The seed of all random draws: the same seed, the same rows.

    Examples:
        dink sample emb.dink.safetensors emb.npy -n 1000 -o sample.parquet
        dink sample emb.dink.safetensors emb.parquet -n 500 --by diverse --ids id
    """
    SampleOptions(number, by, quota, levels_of(levels), sample_weight is not None, seed)
    job = _Job(model_path, inputs, output, rows, shown, memory, sample_weight=sample_weight)
    from dinkcli.assigning.sample import COLUMNS
    from dinkcli.assigning.sample import sample as core

    with job.writing(COLUMNS) as (layout, options):
        more: dict[str, Any] = {"quota": quota, "levels": levels_of(levels), "seed": seed}
        result = core(job.model, job.data, number, by=by, **more, **options)
        job.destination.write(layout, len(result.rows), result.written())
    job.tell(result, len(result.rows))


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
        from dinkcli.data.machine import default_memory, parse_size

        self._started = time.monotonic()
        self.destination = Destination(output, shown)
        self.memory = parse_size(memory) or default_memory()
        self.model_path = model_path
        self.model = load_model(model_path, inputs, warns=True)
        self.data = rows.open(self.model, inputs, **references)
        show_notes(self.data, shown.quiet)
        self._device = rows.device

    @contextmanager
    def writing(self, columns: pa.Schema) -> Iterator[tuple[Layout, dict[str, Any]]]:
        """Yields the layout of the output, and how to compute and to show the steps.

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

            def on_step(phase: str, done: int, total: int) -> None:
                lines.update(phase, done, total, "rows")

            yield layout, {"device": self._device, "memory": self.memory, "on_step": on_step}

    def tell(self, result: Duplicates | Sample, written: int) -> None:
        """The summary."""
        seconds = time.monotonic() - self._started
        about = self.destination.about(self.model, self.model_path)
        summary = {**about, "written_rows": written, **result.to_dict()}
        summary["seconds"] = round(seconds, 3)
        sentence = f"{self.destination.output}: {result.sentence()}, in {seconds:.1f} s"
        self.destination.tell(summary, sentence)
