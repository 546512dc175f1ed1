"""Models, inputs and outputs as commands name them: what may stand where, and what must not be
lost."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import say, warn
from dinkcli.errors import DinkError, ModelError, UsageError
from dinkcli.options import SEEDINGS

if TYPE_CHECKING:
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

    path = "stdin" if first_input == "-" else first_input
    if "://" in path:
        path = path.partition("?")[0]
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    return re.sub(r"[*?\[\]]", "_", stem) + SUFFIX  # a pattern is no name that shells like


def check_model_path(path: str) -> None:
    """Raises DinkError for a name that no model should have, or one that cannot be written."""
    from dinkcli.data.atomic import check_target

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
    """Raises UsageError where ``target``, a default name, is no earlier model of the same data."""
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
    """The model that a command names before its inputs, which people swap; it may be a checkpoint,
    of which a line ``warns``."""
    from dinkcli.models.file import is_model, load

    try:
        model = load(path)
    except (UsageError, ModelError):
        kind = _kind_of_data(path)
        swapped = next(filter(is_model, inputs), None)
        if kind is None and swapped is None:
            raise
        said, order = "expected a model made by dink train", ""
        if swapped is not None:
            said, order = f"and {swapped} is the model", f": {swapped} {path}"
        raise UsageError(
            f"{path}: {kind or 'no model'}, {said}, which comes before the inputs{order}"
        ) from None
    if warns and model.state is not None:
        warn(f"{path}: the training of this model is not finished; dink train --resume goes on")
    return model


def _kind_of_data(path: str) -> str | None:
    """What a file holds, when it is data that dink reads and not a model."""
    from dinkcli.data.inputs import open_data

    if os.path.isdir(path):
        return "a folder"
    with suppress(DinkError):
        kind = open_data([path]).readers[0].format if os.path.isfile(path) else "safetensors"
        return None if kind == "safetensors" else f"{kind} data"
    return None


def refuse_overwriting(command: str, values: Mapping[str, Any]) -> None:
    """Raises UsageError where a command would write a file that it reads, or one file twice."""
    if command == "train":
        from dinkcli.models.model import checkpoint_path

        target = values["output"] or default_model_path(values["inputs"][0])
        written = {"-o": target, "the checkpoint of -o": checkpoint_path(target)}
    else:
        written = {"-o": values.get("output"), "--json-file": values.get("json_file")}
    written = {option: path for option, path in written.items() if path and path != "-"}
    if len({*map(os.path.realpath, written.values())}) < len(written):
        raise UsageError(f"{written['-o']}: stands for {' and for '.join(written)}; name two files")
    for name in _READ:
        if name == "model_path" and command in _IN_PLACE:
            continue
        value = values.get(name)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            for path in filter(os.path.isfile, written.values()):
                if isinstance(text, str) and text not in SEEDINGS and _reads(text, path):
                    raise UsageError(f"{path}: is an input of this run; choose another output")


def _reads(text: str, path: str) -> bool:
    """Whether the file at ``path`` is one of those that an argument stands for."""
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
