"""The Python functions behind ``dink train``, ``assign`` and ``sweep``, which need torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.assigner import assign as assign_blocks
from dinkcli.assigning.assigner import assigner_for
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.errors import UsageError
from dinkcli.insight.recommend import USUAL, Sweep, number_of, parse_numbers
from dinkcli.insight.survey import survey
from dinkcli.insight.sweeper import sweep as sweep_rows
from dinkcli.models import edit
from dinkcli.models.centers import read_centers
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.models.statistics import Statistics
from dinkcli.models.tree import squared_distances
from dinkcli.options import CHOSEN, GIVEN, LEARNED, SEEDINGS, AssignOptions, TrainOptions
from dinkcli.processes.device import resolve_device
from dinkcli.processes.group import SINGLE, Group
from dinkcli.processes.workers import threads_for
from dinkcli.training.checkpoint import Checkpoints, checksums, load_checkpoint, restore, shift_of
from dinkcli.training.rows import RowSource
from dinkcli.training.trainer import Step, Trainer

Path: TypeAlias = str | os.PathLike[str]
_FEWEST_ROWS = 6  # to choose K from

Inputs: TypeAlias = Path | Sequence[Path] | DataSet | Any  # see data.inputs.open_data


def train(
    inputs: Inputs,
    n_clusters: int | str | TrainOptions,
    *,
    init: str | np.ndarray | Tensor = "kmeans++",
    metric: str = "euclidean",
    temperature: float | str = "auto",
    dilation: float | None = None,
    refine: bool = True,
    n_init: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    tol: float = 1e-4,
    seed: int = 0,
    max_size: str | int | None = None,
    column: str | None = None,
    device: str = "auto",
    sample_weight: Any = None,
    memory: int | None = None,
    bad_rows: str = "stop",
    on_try: Callable[[str, int, int], None] = lambda phase, done, total: None,
    on_chosen: Callable[[Sweep], object] | None = None,
    on_step: Callable[[Step], object] = lambda step: None,
    checkpoints: Checkpoints | None = None,
    resume: Path | None = None,
    force: bool = False,
    group: Group = SINGLE,
) -> Model:
    """Trains a model on files or on an array.

    Args:
        inputs: path or paths of files that dink reads; or N rows in memory: an (N, D) array of
            NumPy, masked or not, a tensor, a sparse matrix of SciPy, a list of lists, or a frame,
            table or column of pandas, polars, pyarrow or what else gives itself to Arrow.
        n_clusters: K; "auto" for the one that ``dinkcli.sweep`` recommends from 2 to 100 and
            beyond, or a range such as "5:300", with a warning where none is clear; "clear" refuses
            then. Or all options at once, in place of ``metric`` to ``max_size``.
        init: "kmeans++", "random", "xavier", (K, D) centres, or a file of them (npy, parquet, an
            earlier model, a faiss index, or a scikit-learn estimator through skops).
        metric: "euclidean", "cosine" (rows are compared by their direction), or "learned"
            (euclidean under a map that follows neighbours).
        temperature: "auto" anneals to 0. A number (a squared distance) stays fixed, 0 being the
            k-means objective and infinity the paper's Eq. 6.
        dilation: weight of the dilation loss; None is 0, and 1 at temperature infinity.
        refine: move whole centres after annealing.
        n_init: starts, of which the best is kept; None follows the data.
        epochs: most passes over all rows; None is 30.
        batch_size: rows per update; None follows N and K.
        tol: stop when a pass lowers the inertia by less than this share of it.
        seed: of all random draws.
        max_size: most rows of a cluster, a number or a multiple of the mean such as "1.2x".
        column: of the vectors, or a pattern such as "dim_*" for one column per dimension, where
            several could be meant.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        sample_weight: (N,) values, not negative; or a column, or a file of them.
        memory: bytes that the rows may take, a quarter of the machine's by default; beyond it
            they are read anew for each pass.
        bad_rows: "stop" raises at the first row that is null, ragged, not finite, or of norm 0
            under cosine; "skip" and "label" leave such rows out.
        on_try: as ``on_step`` of ``sweep``, while K is chosen.
        on_chosen: called with what the sweep says, in place of a warning where no K is clear.
        on_step: called after every update of the centres.
        checkpoints: where to save the unfinished training, and how often.
        resume: a checkpoint, or the model that it was to become, to go on from, with the data and
            options of the run that wrote it.
        force: go on with others all the same.
        group: the processes of a launcher that train together, from ``group.join``; all call
            this with the same arguments, and get the same model.

    Raises:
        DinkError: see ``dinkcli.errors``; an InputError for "clear" when no number stands out.
    """
    chosen = n_clusters
    if not isinstance(chosen, TrainOptions):
        chosen = TrainOptions(
            chosen,
            metric=metric,
            temperature=temperature,
            dilation=dilation,
            refine=refine,
            n_init=n_init,
            epochs=epochs,
            batch_size=batch_size,
            tol=tol,
            seed=seed,
            max_size=max_size,
        )
    data = open_inputs(inputs, column, bad_rows, sample_weight=sample_weight)
    notify = warnings.warn if checkpoints is None else checkpoints.notify
    saved = None if resume is None else load_checkpoint(os.fspath(resume))
    initial = _initial_centers(init, data.feature_names)
    chosen = replace(chosen, init=str(init) if initial is None else GIVEN)
    if not group.alone:
        _refuse_alone(data, chosen)
    data = data.repeatable()
    k = chosen.n_clusters
    if isinstance(k, str):
        if initial is not None:
            raise UsageError(f"`n_clusters` {k}: cannot start from given centres; give a number")
        if data.known_rows < _FEWEST_ROWS:
            few = f"{data.known_rows} rows are too few to choose from"
            raise UsageError(f"`n_clusters` {k}: {few}; give a number")
        numbers = USUAL if k in CHOSEN else k
        more: dict[str, Any] = {"metric": chosen.metric, "seed": chosen.seed, "on_step": on_try}
        result = sweep(data, numbers, device=device, memory=memory, **more)
        chosen = replace(chosen, n_clusters=number_of(result, k, data.name))
        if on_chosen is not None:
            on_chosen(result)
        elif result.n_clusters is None:
            notify(result.answer)
    chosen.check_rows(data.known_rows, data.name)
    if saved is not None:
        data = data.around(saved.offset)
    shift = None if saved is None else shift_of(saved, data.n_features)
    where = resolve_device(device, group.world.local_rank)
    rows = RowSource(data, chosen.metric, where, memory, shift, group, saved is None)
    if initial is not None:
        _check_initial(initial, chosen.k, data)
        offset = rows.data.offset
        initial = (initial if offset is None else initial - torch.from_numpy(offset)).float()
    with threads_for(rows.n_rows // group.size * data.n_features * chosen.k):
        trainer = Trainer(rows, chosen, initial)
        sums = checksums(trainer) if checkpoints or saved else {}
        if saved is not None:
            for difference in restore(trainer, saved, sums, os.fspath(resume or ""), force):
                notify(f"the result may differ in its last digits: {difference}")
        if checkpoints is not None:
            trainer.on_rest = partial(checkpoints.rest, trainer, sums)
        for step in trainer.steps():
            on_step(step)
        model = trainer.model()
        model.statistics = trainer.row_statistics(model)
        return model


def assign(
    model: Model | Path,
    inputs: Inputs,
    *,
    soft: bool = False,
    temperature: float | None = None,
    probability_type: str = "float32",
    min_prob: float | None = None,
    max_distance: float | None = None,
    max_size: str | int | None = None,
    column: str | None = None,
    device: str = "auto",
    bad_rows: str = "stop",
) -> np.ndarray:
    """The clusters of all N rows: (N,) int32, or when ``soft`` (N, K) probabilities.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``.
        soft: give probabilities instead of labels.
        temperature: of the probabilities, softmax over centres of minus the squared distance over
            it; None for the model's own.
        probability_type: "float32" or "float16".
        min_prob: rows whose cluster is less probable than this are outliers, labelled -1.
        max_distance: rows farther than this from every centre are outliers, labelled -1.
        max_size: most rows of a cluster, as for ``train``; labels then depend on all rows.
        column: of the vectors, where that of the training is not meant.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        bad_rows: "stop" raises at the first bad row (see ``train``), "skip" leaves such rows out
            of the result, "label" gives them the label -1.

    Raises:
        DinkError: see ``dinkcli.errors``.
    """
    model = as_model(model)
    data = open_inputs(inputs, column, bad_rows, model=model)
    chosen = AssignOptions(
        soft=soft,
        temperature=temperature,
        probability_type=probability_type,
        min_prob=min_prob,
        max_distance=max_distance,
        max_size=max_size,
    )
    assigner = assigner_for(model, data, resolve_device(device), chosen)
    name = "probabilities" if soft else "cluster"
    return np.concatenate([part.columns[name] for part in assign_blocks(assigner, data)])


def split(
    model: Model | Path,
    cluster: int,
    inputs: Inputs,
    n_parts: int = 2,
    *,
    seed: int = 0,
    column: str | None = None,
    device: str = "auto",
    bad_rows: str = "stop",
) -> Model:
    """The model with a cluster in ``n_parts``, by those of its rows among the N of ``inputs``.
    The largest part keeps the number of the cluster.

    Args:
        model: a model or the path of one.
        cluster: its number.
        n_parts: how many.
        inputs, column, device, bad_rows: as for ``assign``.
        seed: of all random draws.

    Raises:
        DinkError: see ``dinkcli.errors``.
    """
    model = as_model(model)
    if n_parts < 2:
        raise UsageError(f"split {cluster}:{n_parts}: expected two or more parts")
    edit.check_present(model, [cluster])
    data = open_inputs(inputs, column, bad_rows, model=model)
    views = survey(model, data, resolve_device(device))
    z = np.concatenate([view.z[view.labels == cluster] for view in views])
    if len(z) < n_parts:
        raise UsageError(f"split {cluster}:{n_parts}: {data.name} has {len(z)} of its rows")
    metric = "cosine" if model.metric == "cosine" else "euclidean"
    options = TrainOptions(n_parts, metric=metric, seed=seed)
    centers = train(z, options, device=device).cluster_centers.astype(np.float64)
    squares = squared_distances(z, centers)
    of_rows = z, squares.argmin(1), squares.min(1), np.ones(len(z)), centers
    parts = Statistics.of_rows(*of_rows, edit.statistics_of(model).first_bin)
    return edit.split(model, cluster, parts)


def sweep(
    inputs: Inputs,
    numbers: str | Sequence[int] = "2:100",
    *,
    metric: str = "euclidean",
    seed: int = 0,
    column: str | None = None,
    device: str = "auto",
    sample_weight: Any = None,
    memory: int | None = None,
    bad_rows: str = "stop",
    on_step: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Sweep:
    """Tries many numbers of clusters on N rows and recommends one, if one is clear.

    Args:
        inputs, seed, column, device, sample_weight, memory, bad_rows: as for ``train``.
        numbers: the K to try, or text: "5:100" (a few in equal ratios, more while the best is in
            the last octave, then those around it), "5:100:5" or "5,10,20". What would leave fewer
            than two rows for each cluster is left out.
        metric: for "learned", numbers are compared by euclidean distances, before a map is learned.
        on_step: called with a phase, the position in it, and its length.

    Raises:
        DinkError: see ``dinkcli.errors``.
    """
    text = numbers if isinstance(numbers, str) else ",".join(map(str, numbers))
    parse_numbers(text)
    TrainOptions("auto", metric=metric, seed=seed)  # checks them
    data = open_inputs(inputs, column, bad_rows, sample_weight=sample_weight)
    # How many clusters there are is asked before a map is learned.
    compared = "euclidean" if metric == LEARNED else metric
    rows = RowSource(data, compared, resolve_device(device), memory)
    tried, grows = parse_numbers(text, rows.n_rows)
    return sweep_rows(rows, tried, grows, seed, on_step)


def _refuse_alone(data: DataSet, options: TrainOptions) -> None:
    """Raises UsageError for what only one process alone can do."""
    why = "which runs in one process only; start it without a launcher"
    if isinstance(k := options.n_clusters, str):
        raise UsageError(f"`n_clusters` {k}: tries many numbers of clusters, {why}")
    if options.max_size is not None:
        raise UsageError(f"`max_size`: looks at all rows at once, {why}")
    if options.literal:
        raise UsageError(f"`temperature` inf: is gradient descent, {why}")
    if data.stream is not None:
        raise UsageError(
            f"{data.stream}: a stream, of which each process would need its part; give files"
        )


def _check_initial(initial: Tensor, n_clusters: int, data: DataSet) -> None:
    if initial.shape != (n_clusters, data.n_features):
        raise UsageError(
            f"`init`: centres of shape {tuple(initial.shape)}, expected "
            f"({n_clusters}, {data.n_features}) (clusters, features of {data.name})"
        )
    if not initial.isfinite().all():
        raise UsageError("`init`: centres that are not all finite numbers")


def _initial_centers(
    init: str | np.ndarray | Tensor, feature_names: Sequence[str]
) -> Tensor | None:
    if not isinstance(init, str):
        return torch.as_tensor(init)
    if init in SEEDINGS:
        return None
    if not os.path.exists(init):
        raise UsageError(
            f"`init` {init}: expected {', '.join(SEEDINGS)}, or a file of centres, "
            "and there is no such file"
        )
    return torch.from_numpy(read_centers(init, feature_names))
