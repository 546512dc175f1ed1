"""Models, inputs and outputs as commands name them: what may stand where, what must not be lost,
and where assign, dedup and sample write."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.assigning.shards import Shard, launched, parse_shard, usual_part_rows
from dinkcli.cli.console import printable, say, warn
from dinkcli.cli.signals import is_silent
from dinkcli.errors import DinkError, ModelError, OutputError, UsageError
from dinkcli.options import SEEDINGS

if TYPE_CHECKING:
    from dinkcli.assigning.layout import Layout, Rows
    from dinkcli.assigning.pipeline import Counts
    from dinkcli.assigning.writers import Output
    from dinkcli.cli.options import TableOutput
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

# Suffixes that promise something else than a model.
_OTHERS = {
    *("npy", "npz", "parquet", "pq", "arrow", "arrows", "feather", "ipc", "h5", "hdf5"),
    *("csv", "tsv", "txt", "json", "jsonl", "ndjson", "fvecs", "bvecs", "ivecs", "html"),
    *("onnx", "pt", "pt2", "pth", "faiss", "skops", "pkl", "pickle", "joblib"),
    *("gz", "bz2", "xz", "zst", "zip"),
}
# The parameters that name files to read; other texts are words, such as -k auto.
_READ = (
    *("inputs", "model_path", "match_path", "init", "against", "ids", "texts", "labels", "names"),
    *("sample_weight", "quota"),
)
_IN_PLACE = ("name", "update", "edit")  # commands whose output may be the model that they read


def default_model_path(first_input: str) -> str:
    """``<stem of the first input>.dink.safetensors`` in the current folder."""
    from dinkcli.models.model import SUFFIX

    if first_input == "-":
        return "stdin" + SUFFIX
    path = first_input.partition("?")[0] if "://" in first_input else first_input
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    return re.sub(r"[*?\[\]]", "_", stem) + SUFFIX  # a pattern is no name that shells like


def check_model_path(path: str | None) -> None:
    """Raises DinkError for a name that no model should have, or one that cannot be written."""
    from dinkcli.data.atomic import check_target

    if path is None:
        return
    refuse_stream(path, "a model")
    stem, end = os.path.splitext(path)
    suffix = end.removeprefix(".").lower()
    if suffix in _OTHERS:
        raise UsageError(
            f"-o {path}: a model is a .safetensors file, and .{suffix} stands for something else; "
            f"write -o {stem}.safetensors (dink export makes other formats)"
        )
    check_target(path)


def refuse_stream(path: str, what: str) -> None:
    """Raises UsageError for ``-o -`` where only a file can be written."""
    if path == "-":
        raise UsageError(f"-o -: {what} is written to a file, not to standard output; name a file")


def keep_other_models(target: str, data: DataSet, quiet: bool) -> None:
    """Raises UsageError where ``target``, a default name, would replace anything but an earlier
    model of the same data."""
    from dinkcli.models.file import load

    if not os.path.exists(target):
        return
    advice = "name this model with -o, or -o with the same name to replace that one"
    try:
        old = load(target).training.get("input", {})
    except DinkError:
        raise UsageError(f"{target}: is there already and is no model; {advice}") from None
    new = data.fingerprint()
    if any(old.get(name) != new[name] for name in ("files", "features", "bytes", "dtype")):
        files = ", ".join(old.get("files", [])[:3]) or "other data"
        size = f"{old.get('rows', 0)} rows of {old.get('features', 0)} features"
        raise UsageError(f"{target}: is the model of {files} ({size}), not of these data; {advice}")
    if not quiet:
        say(f"Note: {target} replaces an earlier model of the same inputs")


def load_model(path: str, inputs: Sequence[str] = (), warns: bool = False) -> Model:
    """The model that a command names before its inputs; an error says where they are swapped, and
    where it ``warns``, a line says that the model is a checkpoint."""
    from dinkcli.models.file import is_model, load

    try:
        model = load(path)
    except (UsageError, ModelError):
        kind = _kind_of_data(path)
        swapped = next(filter(is_model, inputs), None)
        if swapped is not None:
            raise UsageError(
                f"{path}: {kind or 'no model'}, and {swapped} is the model, which comes before the "
                f"inputs: {swapped} {path}"
            ) from None
        if kind is None:
            raise
        raise UsageError(
            f"{path}: {kind}, expected a model made by dink train, which comes before the inputs"
        ) from None
    if warns and model.state is not None:
        warn(f"{path}: the training of this model is not finished; dink train --resume goes on")
    return model


def _kind_of_data(path: str) -> str | None:
    """What a file holds, when it is data that dink reads and not a model."""
    from dinkcli.data.inputs import open_data

    if os.path.isdir(path):
        return "a folder"
    try:
        reader = open_data([path]).readers[0] if os.path.isfile(path) else None
    except DinkError:
        return None
    return None if reader is None or reader.format == "safetensors" else f"{reader.format} data"


def refuse_overwriting(command: str, values: Mapping[str, Any]) -> None:
    """Raises UsageError, before any work, where a file that a command writes is one that it reads,
    or where it writes two files of one name.

    Args:
        values: of all parameters of the command.
    """
    if command == "train":
        from dinkcli.models.model import checkpoint_path

        target = values["output"] or default_model_path(values["inputs"][0])
        written = {"-o": target, "the checkpoint of -o": checkpoint_path(target)}
    else:
        written = {"-o": values.get("output"), "--json-file": values.get("json_file")}
    written = {option: path for option, path in written.items() if path and path != "-"}
    (_, first), *others = [*written.items()] or [("", "")]
    for option, path in others:
        if os.path.realpath(path) == os.path.realpath(first):
            raise UsageError(f"{path}: stands for -o and for {option}; name two files")
    read = [values.get(name) for name in _READ if name != "model_path" or command not in _IN_PLACE]
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in read]
    texts = [each for few in lists for each in few if isinstance(each, str)]
    for path in filter(os.path.isfile, written.values()):
        if any(_reads(text, path) for text in texts if text not in SEEDINGS):
            raise UsageError(f"{path}: is an input of this run; choose another output")


def _reads(text: str, path: str) -> bool:
    """Whether the file at ``path`` is one of those that an argument stands for: a file, perhaps
    with a column of it, the files of a folder, or of a pattern."""
    from dinkcli.data.files import is_remote, sources

    if is_remote(text):
        return False
    names = [text, text.rpartition(":")[0], *glob.glob(text, recursive=True)]
    for name in filter(os.path.exists, names):
        if os.path.samefile(name, path):
            return True
        inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(name), ""))
        if inside and any(os.path.samefile(str(each.path), path) for each in sources(name)):
            return True
    return False


def levels_of(text: str | None) -> tuple[int, ...]:
    """The numbers of ``--levels``."""
    try:
        levels = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--levels {text}: expected numbers such as 10,100") from None
    if len(set(levels)) < len(levels):
        raise UsageError(f"--levels {text}: one of them is given twice")
    return levels


class Destination:
    """Where the rows are to go, the options for it checked against each other and the file system.

    Attributes:
        output: a file, a folder for parts, or None for standard output.
        encoding: how they are written.
        share: of the rows, when other processes write the others.
        in_parts: whether the output is a folder.
        silent: another process speaks for this one.
        quiet: that, or --quiet.
    """

    def __init__(
        self,
        output: str | None,
        shown: TableOutput,
        rows_per_file: int | None = None,
        shard: str | None = None,
        resume: bool = False,
        by_cluster: bool = False,
    ):
        from dinkcli.assigning.writers import encoding_of
        from dinkcli.data.atomic import check_target

        share = _share_of(shard)
        output = None if output == "-" else output
        parts = rows_per_file is not None or share is not None
        if shown.json_file is not None:
            refuse_stream(shown.json_file, "the summary of --json-file")
        if shown.as_json and output is None:
            raise UsageError(
                "--json writes to standard output, and so do the rows: name a file with -o, or "
                "write the summary to one by --json-file"
            )
        if share is not None:
            _check_folder_name(output, share, rows_per_file)
        if parts and output is None:
            raise UsageError("--rows-per-file writes a folder of parts: name it with -o")
        if resume and not parts:
            raise UsageError("--resume goes on with a folder of parts: give its --rows-per-file")
        if by_cluster and (output is None or parts or shown.format not in (None, "parquet")):
            raise UsageError(
                "--partition-by-cluster writes a folder of parquet: name it with -o, and leave out "
                "--rows-per-file, --shard and other formats"
            )
        self.encoding = encoding_of(
            output, shown.format, csv_safe=shown.csv_safe, parts=parts or by_cluster
        )
        self.output, self.in_parts, self.rows_per_file = output, parts, rows_per_file
        self.share, self.resume, self.by_cluster = share, resume, by_cluster
        self.silent = is_silent(share)
        self.quiet = shown.quiet or self.silent
        self._json_file = None if self.silent else shown.json_file
        self._as_json = shown.as_json
        for path in (None if parts or by_cluster else output, self._json_file):
            if path is not None:
                check_target(path)

    @property
    def shows_progress(self) -> bool:
        """Whether lines on standard error are in nobody's way."""
        return not (self.quiet or self._as_json or self.output is None)

    def open(self, data: DataSet | None = None) -> Output:
        """The output, for a share one of all rows of ``data``."""
        from dinkcli.assigning.writers import Output

        rows_per_file = self.rows_per_file
        if self.share is not None and data is not None:
            self.share.check(data)
            rows_per_file = rows_per_file or usual_part_rows(data.known_rows, self.share.count)
        if self.output is None and sys.stdout is None:
            raise OutputError("standard output is closed; write to a file with -o")
        stream = sys.stdout.buffer if self.output is None else None
        name = self.output or "standard output"
        where = (rows_per_file, self.resume, self.share, stream, self.by_cluster)
        return Output(name, self.encoding, *where)

    def write(self, layout: Layout, n_rows: int, rows: Iterable[Rows]) -> None:
        """Writes ``n_rows`` rows to one file or to standard output."""
        from dinkcli.assigning.parts import open_output

        with open_output(self.open(), replace(layout, n_rows=n_rows)) as writer:
            for some in rows:
                writer.write(some)

    def about(self, model: Model, name: str) -> dict[str, Any]:
        """What a summary says of the output, None for standard output, and of the model."""
        return {
            "output": None if self.output is None else printable(self.output),
            "format": self.encoding.format,
            "model": printable(name),
            "fingerprint": model.fingerprint,
            "n_clusters": model.n_clusters,
        }

    def parts(self, counts: Counts, **more: int) -> dict[str, Any]:
        """What a summary says of parts, and ``more`` of them, and of the share."""
        parts = {} if counts.parts is None else {"parts": counts.parts, **more}
        if self.share is None:
            return parts
        return {**parts, "shard": str(self.share), "complete": counts.complete}

    def tell(self, summary: dict[str, Any], sentence: str) -> None:
        """Saves the summary, and shows it as JSON or, of a file or a folder, as a sentence."""
        from dinkcli.data.atomic import atomic_path

        text = json.dumps(summary)
        if self._json_file is not None:
            with atomic_path(self._json_file) as path, open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
        if self._as_json and not self.silent:
            typer.echo(text)
        elif self.shows_progress:
            whole = summary.get("complete", True)
            say(sentence + ("" if whole else "; parts of other shares are missing yet"))


def bad_rows_in(summary: dict[str, Any]) -> str:
    """How many they are, as the end of a sentence; an empty text where there are none."""
    number = summary["bad_rows"]
    return f", {number} bad row{'s' * (number > 1)}" if number else ""


def _share_of(text: str | None) -> Shard | None:
    """The share that --shard names, or that of this process of a launcher."""
    share = launched()
    if text is None:
        return share
    if share is not None:
        raise UsageError(
            f"--shard {text}: a launcher has started {share.count} processes (WORLD_SIZE), which "
            "take a share each by themselves; leave --shard out, or the launcher"
        )
    return parse_shard(text)


def _check_folder_name(output: str | None, share: Shard, rows_per_file: int | None) -> None:
    """Raises UsageError where the shares would have no folder to go to."""
    from dinkcli.assigning.writers import names_a_file

    who = f"{share.count} processes write" if share.launched else f"--shard {share} writes"
    if output is None:
        raise UsageError(f"{who} into a folder of parts: name it with -o")
    if rows_per_file is None and names_a_file(output):
        raise UsageError(
            f"-o {output}: {who} into a folder of parts, not into one file; name a folder"
        )
