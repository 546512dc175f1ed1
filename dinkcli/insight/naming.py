"""Names for the clusters of a model: by texts or labels, by a language model, or as people say; and
new rows for a model, whose new clusters get names.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinkcli.assigning.update import Update
from dinkcli.assigning.update import update as take_in
from dinkcli.data.inputs import open_inputs
from dinkcli.errors import UsageError
from dinkcli.insight.evaluate import names_by_labels
from dinkcli.insight.inspect import Seen, look
from dinkcli.insight.llm import Answers, Reply, Server, ask, group_questions, prompt, questions
from dinkcli.insight.names import clusters_of, group_names, parse_names
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.options import UpdateOptions
from dinkcli.results import NAME, Field, Result, Sheet

_TYPICAL = 8  # rows of a cluster that say what it is
OnReply = Callable[[str, int, int, Reply], None]


@dataclass(frozen=True)
class Naming(Result):
    """A model whose clusters have names.

    Attributes:
        model: the new model, which ``save`` writes.
        groups: of the levels that were asked for: level, group, clusters and name of each.
        seen: what the texts say; None without.
    """

    model: Model
    groups: list[dict[str, Any]]
    seen: Seen | None = None

    @property
    def prompt(self) -> str:
        """What a language model, or a colleague, needs to name the clusters by their texts. The
        answer is what ``names`` takes.

        Raises:
            UsageError: there were no texts.
        """
        if self.seen is None:
            raise UsageError("a prompt shows rows: give `inputs` with `texts`")
        return prompt(self.seen)

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain JSON, as ``--json`` of the command gives it: clusters, then groups."""
        terms = self.model.terms or [[]] * self.model.n_clusters
        named = enumerate(zip(self.model.all_names, terms, strict=True))
        return [
            {"cluster": j, "name": name, "terms": own} for j, (name, own) in named
        ] + self.groups

    def to_arrow(self) -> pa.Table:
        """A row for each cluster: its number, its name, and its terms."""
        return pa.Table.from_pylist(self.to_dict()[: self.model.n_clusters])

    def sheets(self) -> list[Sheet]:
        model = self.model
        terms = Field("terms", drop=1, text=True)
        sheets = [Sheet("cluster", "rows", NAME, terms, title="clusters by size")]
        sizes, present = model.cluster_sizes, model.present
        for j in present[(-sizes[present]).argsort(kind="stable")].tolist():
            words = ", ".join(model.terms[j]) if model.terms else ""
            sheets[0].add(j, f"{sizes[j]:g}", model.all_names[j], words)
        if self.groups:
            inside = Field("clusters", drop=1, text=True)
            sheets.append(Sheet("level", "group", inside, NAME, title="groups of clusters"))
            for each in self.groups:
                numbers = ",".join(map(str, each["clusters"]))
                sheets[1].add(each["level"], each["group"], numbers, each["name"])
        return sheets


def name(
    model: Model | str | os.PathLike[str],
    inputs: Any = None,
    *,
    texts: Any = None,
    labels: Any = None,
    names: Mapping[int, str] | Sequence[str] | str | os.PathLike[str] | None = None,
    llm: str | None = None,
    llm_model: str | None = None,
    answers: str | os.PathLike[str] | None = None,
    levels: Sequence[int] = (),
    force: bool = False,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    on_rows: Callable[[int], None] = lambda done: None,
    on_reply: OnReply = lambda what, done, total, reply: None,
) -> Naming:
    """Names clusters by texts or labels of N rows, by a language model, or as you say.

    By texts, a name is of terms that tell a cluster from the others; by labels, of those that most
    of its rows have. The model that is given stays as it is.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``, with texts or labels.
        texts, labels: of the rows: a column, a file, or (N,) values.
        names: by cluster, or K names, or the path of a file of them, ``-`` for standard input;
            clusters that are not in it keep theirs.
        llm: an address such as http://localhost:8000/v1, of a server of OpenAI's chat completions
            that names clusters by their texts, one request each; its key is in OPENAI_API_KEY.
        llm_model: the model that the server should use.
        answers: a file that keeps answers of the server, so that a stopped run goes on. Whoever
            has saved the model removes it.
        levels: numbers of groups of the tree, whose groups get names too.
        force: replace names that were given by hand as well.
        column, bad_rows, device: as for ``assign``.
        on_rows: called with the rows seen so far.
        on_reply: called with "cluster" or "group", the number of answers so far and of questions,
            and the answer.

    Raises:
        UsageError: nothing to take names from, or two things that exclude each other.
        RunError: the server is not there, or refuses.
        InputError: rows that the model cannot take.
    """
    model = replace(as_model(model))
    data = None
    if inputs is not None:
        data = open_inputs(inputs, column, bad_rows, model=model, texts=texts, labels=labels)
        texts, labels = data.columns.text, data.columns.label
    if (data is None) != (texts is None and labels is None):
        raise UsageError(
            "names come from texts or labels of rows: give `inputs`, and `texts` or `labels`"
        )
    if data is None and names is None and not levels:
        raise UsageError("give `inputs` with `texts` or `labels`, or `names`")
    if (llm is None) != (llm_model is None) or (llm is not None and texts is None):
        raise UsageError("a language model names texts: give `llm`, `llm_model` and `texts`")
    if llm is not None and names is not None:
        raise UsageError("`llm` asks for names by itself: leave `names` away")
    server = None if llm is None or llm_model is None else Server(llm, llm_model)
    kept = Answers(answers)
    before, given = model.all_names, _given(names, model.n_clusters)
    if force:
        model.named_by_hand = []
    seen = None
    if data is not None and texts is not None:
        seen = look(model, data, _TYPICAL, device, on_rows)
        model.names, model.terms, model.group_names = seen.names, seen.terms, {}
        if server is not None:
            asked = questions(model, seen)
            for j in model.named_by_hand:
                asked.pop(j, None)
            for j, text in ask(server, asked, kept, partial(on_reply, "cluster")).items():
                model.names[j] = text
    if data is not None and labels is not None:
        model.names = names_by_labels(model, data, device, on_rows)
    model.names = [given.get(j, text) for j, text in enumerate(model.all_names)]
    for j in model.named_by_hand:
        model.names[j] = before[j]
    groups: list[dict[str, Any]] = []
    model.group_names = dict(model.group_names)
    tree = model.tree if levels else []
    for level in levels:
        in_groups = model.groups(level, tree)
        names_of_level = group_names(model, in_groups)
        if server is not None:
            asked = group_questions(model, in_groups)
            names_of_level |= ask(server, asked, kept, partial(on_reply, "group"))
        for number, inside in clusters_of(in_groups).items():
            text = model.group_names[inside] = names_of_level[number]
            groups.append({"level": level, "group": number, "clusters": list(inside), "name": text})
    return Naming(model, groups, seen)


def _given(names: Any, n_clusters: int) -> dict[int, str]:
    """The names that were given, by cluster."""
    if names is None:
        return {}
    if not isinstance(names, (str, os.PathLike)):
        pairs = dict(names if isinstance(names, Mapping) else enumerate(names))
        if not isinstance(names, Mapping) and len(pairs) != n_clusters:
            raise UsageError(f"`names`: {len(pairs)} names for {n_clusters} clusters")
        if wrong := [j for j in pairs if j not in range(n_clusters)]:
            raise UsageError(f"`names`: cluster {wrong[0]}, but the model has {n_clusters}")
        return pairs
    path = os.fspath(names)
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"`names` {path}: {reason}") from None
    return parse_names(text, n_clusters, f"`names` {path}")


def update(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    *,
    freeze: bool = False,
    birth_price: float = 5.0,
    min_size: int = 5,
    half_life: float | None = None,
    max_size: str | int | None = None,
    again: bool = False,
    texts: Any = None,
    sample_weight: Any = None,
    column: str | None = None,
    device: str = "auto",
    bad_rows: str = "stop",
    on_rows: Callable[[str, int], None] = lambda phase, done: None,
) -> Update:
    """Takes N new rows into a model, without the old ones; the model that is given stays as it is.

    Args:
        model: a model or the path of one.
        inputs, column, device, bad_rows: as for ``assign``.
        freeze: no centre moves and no cluster is made; what comes is counted all the same.
        birth_price: what a new cluster must lower the inertia by, in mean squared distances of a
            row; infinite for no new clusters.
        min_size: rows that a new cluster has at least.
        half_life: updates after which what was there counts half, or None.
        max_size: most of the new rows of a cluster, as for ``train``.
        again: count rows once more that were taken in before.
        texts: a column, a file, or (N,) values, by which new clusters of a model with names get
            theirs.
        sample_weight: as for ``train``.
        on_rows: called with the pass's name and the rows seen so far.

    Returns:
        The new model as ``model``, and what the rows were like: ``born``, ``far`` and others.

    Raises:
        DinkError: see ``dinkcli.errors``.
    """
    model = as_model(model)
    beside = {"texts": texts, "sample_weight": sample_weight}
    data = open_inputs(inputs, column, bad_rows, model=model, **beside).repeatable()
    price = math.inf if freeze else birth_price
    options = UpdateOptions(freeze, price, min_size, half_life, max_size, again)
    result = take_in(model, data, options, device, partial(on_rows, "assigning"))
    if result.born and model.names and data.columns.text is not None:
        seen = look(result.model, data, 1, device, partial(on_rows, "naming"))
        names = list(result.model.all_names)
        for cluster in result.born:
            names[cluster] = seen.names[cluster]
        result.model.names = names
    return result
