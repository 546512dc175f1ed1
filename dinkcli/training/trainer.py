"""Training: a generator of steps, which whoever drives it shows and saves.

With ``temperature="auto"`` the centres are seeded on a sample, annealed on its main axes (the
shrink loss at a falling temperature), refined there by moving whole centres, and then updated by
passes over all rows at temperature 0 until the inertia stops falling. A fixed temperature trains
the objective at that temperature; infinity is the paper's literal one, by gradient descent.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinkcli import __version__
from dinkcli.head.objective import dilation_loss
from dinkcli.models.edit import statistics_of
from dinkcli.models.model import Model
from dinkcli.models.statistics import Statistics
from dinkcli.nearest.hardware import accumulator_dtype
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import refuse_overflow
from dinkcli.options import LEARNED, TrainOptions, most_rows
from dinkcli.training import schedule
from dinkcli.training.checkpoint import SearchState, capture
from dinkcli.training.neighbours import follow_neighbours
from dinkcli.training.passes import Pass, descend, limited, lloyd
from dinkcli.training.refine import Refining, State, refine
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import REPORT_ROWS, Averages, Sample
from dinkcli.training.seeding import Seeds, seed_centers
from dinkcli.training.subspace import Subspace, main_axes, number_of_axes

PHASES = {
    "anneal": "looking for clusters",
    "refine": "moving centres",
    "pass": "settling on all rows",
    "limit": "limiting sizes",
}
_REPORTS = 12  # of an annealing
_SAME_END = 1e-5  # of the inertia; other optima of small data lie ten times as far apart or more
_LOOKED_AT = 1 << 16  # rows, of which every cluster has some (docs/LOG.md)


@dataclass(frozen=True)
class Step:
    """What is known after one update of the centres.

    Attributes:
        phase: of PHASES; "pass" is one over all rows, "limit" one under a limit of the sizes of
            clusters, whose inertia is that of its partition.
        done, total: position in the phase; ``total`` is a bound for refine and pass.
        rows: rows that this step read.
        temperature: that the step was made at.
        inertia: sum of squared distances to the nearest centre, scaled to all N rows; on main axes
            what lies outside counts in full.
        dilation_loss, shrink_loss: the paper's Eq. 5 and 6 (Eq. 6 on the rows of the step).
        smallest, largest: share of rows in the smallest and largest cluster.
        start, starts: which of how many starts, from 1.
        reseeded: empty clusters that this step gave new centres.
    """

    phase: str
    done: int
    total: int
    rows: int
    temperature: float
    inertia: float
    dilation_loss: float
    shrink_loss: float
    smallest: float
    largest: float
    start: int = 1
    reseeded: int = 0
    starts: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for the history: an infinite temperature becomes the string "inf", and
        ``starts``, which is the same in all steps, is left out."""
        fields = asdict(self).items()
        return {k: "inf" if v == math.inf else v for k, v in fields if k != "starts"}


class Trainer:
    """Fits K centres to the rows of a source: ``steps()`` trains, ``model()`` is the model so far.
    ``initial`` are (K, D) centres to start from, for ``options.init`` "given".

    Attributes:
        state, generator: all that changes while training. Another trainer of the same rows and
            options that is given a copy of both, taken where ``on_rest`` is called, goes on to the
            same result, bit for bit on the same CPU.
        saved, n_saved: that copy, as of the last such place, and the steps until then.
        on_rest: called there, and with False between them, where the training can stop as well.
        history: the steps so far, as plain JSON.
    """

    def __init__(self, rows: RowSource, options: TrainOptions, initial: Tensor | None = None):
        self.rows, self.options, self.initial = rows, options, initial
        self.generator = torch.Generator().manual_seed(options.seed)
        centers = torch.zeros(options.k, rows.n_features, device=rows.device)
        zeros = centers.new_zeros(options.k, dtype=accumulator_dtype(rows.device))
        self.state = SearchState(centers, zeros, zeros)
        self.history: list[dict[str, Any]] = []
        self.on_rest: Callable[[bool], None] = lambda new: None
        self._starts = 1
        self._free_inertia: float | None = None  # before sizes were limited

    @cached_property
    def sample(self) -> Sample:
        """The rows that centres are seeded, annealed and refined on; the first random draw."""
        rows = self.rows
        size = schedule.sample_size(rows.n_rows, self.options.k, rows.n_features, rows.total_memory)
        return rows.sample(size, self.generator)

    def steps(self) -> Iterator[Step]:
        """Trains; yields after every update that is reported. InputError: too few distinct rows."""
        options, rows, state, sample = self.options, self.rows, self.state, self.sample
        anneals = options.temperature == "auto"
        self.saved, self.n_saved = capture(self), len(self.history)
        if state.passes is None:
            if anneals:
                yield from self._search(sample)
            else:
                state.centers = self._seed(sample).centers
            if options.metric == LEARNED:
                matrix, state.centers = follow_neighbours(sample, state.centers)
                rows.learn(matrix)
            state.passes = 0
        del sample, self.sample  # the memory is wanted elsewhere
        temperature = 0.0 if anneals else float(options.temperature)
        if options.literal:
            passes = descend(rows, options, state, self._rest)
        else:
            passes = lloyd(rows, options, state, temperature, self._rest)
        for done in passes:
            yield self._pass_step("pass", done, temperature)
        if options.max_size is not None:
            self._free_inertia = float(torch.as_tensor(state.cluster_inertia).sum())
            limit = most_rows(options.max_size, rows.n_rows, options.k)
            for done in limited(rows, options, state, limit):
                yield self._pass_step("limit", done, 0.0)
                self._rest(False)

    def _search(self, sample: Sample) -> Iterator[Step]:
        """Seeds, anneals and refines ``n_init`` times, and keeps the lowest inertia; where that is
        not given, two starts that end alike are enough."""
        options, state, k = self.options, self.state, self.options.k
        if k == 1:
            state.centers = sample.means(state.centers, sample.z.new_zeros(len(sample.z)).long())
            return
        how = schedule.effort(len(sample), *state.centers.shape)
        self._starts = options.n_init or how.n_init
        axes = main_axes(sample, k)
        for start in range(state.start, self._starts + 1):
            state.start = start
            if state.refining is None:
                seeds = self._seed(sample)
                space = Subspace.on(sample, axes, number_of_axes(sample, axes, seeds.centers))
                state.refining = yield from self._anneal(space, seeds, how)
                state.centers = space.out_of(state.refining.centers)
                self._rest(True)
            else:  # of a checkpoint
                space = Subspace.on(sample, axes, state.refining.centers.shape[1])
            search, labels = state.refining, None
            if options.refine:
                labels = yield from self._refine(space, search, how)
            state.centers = space.means(search.centers, labels, search.approximate)
            state.refining = None
            if self._starts > 1:
                inertia, before = State.of(sample, state.centers).inertia, state.best_inertia
                agree = start > 1 and math.isclose(inertia, before, rel_tol=_SAME_END)
                if state.best is None or inertia < before:
                    state.best, state.best_inertia = state.centers, inertia
                state.centers = state.best
                if agree and not options.n_init:
                    return

    def _seed(self, sample: Sample) -> Seeds:
        options = self.options
        if self.initial is not None:
            centers = self.initial - self.rows.shift
            refuse_overflow(centers, "`init`")
            seeds = Seeds(centers.to(sample.z))
        else:
            part = schedule.seeding_size(len(sample), options.k)
            seeds = seed_centers(sample, options.k, options.init, self.generator, part)
        return seeds._replace(centers=self.rows.project(seeds.centers))

    def _anneal(
        self, space: Subspace, seeds: Seeds, how: schedule.Effort
    ) -> Generator[Step, None, Refining]:
        """Deterministic annealing: the shrink loss at a falling temperature (Rose 1998).

        Warm responsibilities pull every centre towards all rows, which keeps early mistakes from
        being confirmed; cold ones make crisp clusters. The weight of the dilation loss fades with
        the temperature, so that the last centres are means of their rows.
        """
        sample, state, steps = space.sample, self.state, how.annealing_steps
        size = min(self.options.batch_size or how.annealing_batch, len(sample))
        part = sample[: schedule.seeding_size(len(sample), len(seeds.centers))]
        centers = space.into(seeds.centers)
        labels = part.labels(centers) if seeds.labels is None else seeds.labels
        centers = part.means(centers, labels)
        hottest = schedule.start_temperature(part, centers, labels)
        overlap = sample.overlap(centers)
        averages = Averages(sample, centers, size, overlap)
        first, every = 0, max(1, steps // _REPORTS)
        for number, (temperature, step_size) in enumerate(schedule.cooling(hottest, steps), 1):
            if first + size > len(sample):
                first = 0  # the sample is in random order already
            averages.update(first, centers, temperature, step_size)
            dilation = self.options.dilation_weight * temperature / hottest
            centers = averages.means(centers, dilation)
            if number % every == 0:
                batch = sample[first : first + min(size, REPORT_ROWS)]
                state.centers = space.out_of(centers)
                state.counts = averages.shares * self.rows.total_weight
                step = self._step(
                    "anneal",
                    batch.mean_inertia(centers) + space.left,
                    done=number,
                    total=steps,
                    rows=every * size,
                    temperature=temperature,
                    shrink_loss=space.whole.paper_shrink_loss(state.centers),
                )
                self._rest(False)  # before anybody sees the step: then a signal is of use
                yield step
            first += size
        return Refining.begin(centers, overlap)

    def _refine(
        self, space: Subspace, search: Refining, how: schedule.Effort
    ) -> Generator[Step, None, Tensor | None]:
        """Returns the labels of the rows of the sample, where the last round has found them."""
        state, labels = self.state, None
        for moved, best in refine(space.sample, search, self.generator, how):
            part = space.sample[: best.rows]
            sizes = part.cluster_weights(best.near.labels, len(best.centers))
            state.centers = space.out_of(best.centers)
            state.counts = sizes * (self.rows.total_weight / part.total_weight)
            yield self._step(
                "refine",
                best.inertia / part.total_weight + space.left,
                done=search.largest - moved,
                total=search.largest,
                rows=best.rows,
                temperature=0.0,
                shrink_loss=space.whole.paper_shrink_loss(state.centers),
            )
            self._rest(True)
            labels = best.near.labels if best.rows == len(space.sample) else None
        return labels

    def _pass_step(self, phase: str, done: Pass, temperature: float) -> Step:
        self.state.counts = done.statistics.counts
        self.state.cluster_inertia = torch.as_tensor(done.statistics.cluster_inertia)
        return self._step(
            phase,
            done.statistics.inertia / self.rows.total_weight,
            done=done.number,
            total=done.limit,
            rows=self.rows.n_rows,
            temperature=temperature,
            shrink_loss=done.statistics.paper_shrink_loss(self.state.centers),
            reseeded=done.reseeded,
        )

    def _step(self, phase: str, mean_inertia: float, **known: Any) -> Step:
        """With what is ``known`` about the step, by the names of its fields, and about all."""
        shares = self.state.counts / self.rows.total_weight
        dilation = dilation_loss(self.state.centers).to(shares)
        # All at once: a GPU takes as long for three answers as for thirty.
        dilation_now, smallest, largest = torch.stack([dilation, *shares.aminmax()]).tolist()
        step = Step(
            phase=phase,
            inertia=mean_inertia * self.rows.total_weight,
            dilation_loss=dilation_now,
            smallest=smallest,
            largest=largest,
            start=self.state.start,
            starts=self._starts,
            **known,
        )
        self.history.append(step.as_dict())
        return step

    def _rest(self, new: bool) -> None:
        if new:
            self.saved, self.n_saved = capture(self), len(self.history)
        self.on_rest(new)

    @property
    def cluster_centers(self) -> Tensor:
        """(K, D) on the CPU, in the coordinates of the data less its offset, or under the map."""
        centers = self.state.centers.cpu()
        return centers + self.rows.shift if self.rows.map is None else centers

    def model(self) -> Model:
        """The model so far. The same data, options and seed give the same bytes on one machine."""
        options, rows, data = self.options, self.rows, self.rows.data
        last = self.history[-1] if self.history else {}
        names = ("inertia", "dilation_loss", "shrink_loss")
        metrics: dict[str, Any] = {name: last[name] for name in names if name in last}
        if self._free_inertia is not None:
            metrics["free_inertia"] = self._free_inertia
        metrics["cluster_inertia"] = self.state.cluster_inertia.tolist()
        training = {
            "options": options.as_dict(),
            "input": {**data.fingerprint(), "bad_rows": rows.n_bad},
            "metrics": metrics,
            "versions": {"dink": __version__, "torch": str(torch.__version__)},
            "history": self.history,
        }
        matrix = origin = None
        if rows.map is not None:
            matrix, origin = rows.map.matrix.float().cpu().numpy(), rows.shift.numpy()
        elif options.metric == LEARNED:  # before a map is learned: a model without one
            matrix = np.eye(rows.n_features, dtype=np.float32)
            origin = np.zeros_like(matrix[0])
        return Model(
            self.cluster_centers.numpy(),
            self.state.counts.cpu().numpy().astype(np.float64),
            options.metric,
            data.column,
            list(data.feature_names),
            training,
            map=matrix,
            origin=origin,
            offset=data.offset,
        )

    def row_statistics(self, model: Model) -> Statistics:
        """Of the rows of each cluster of the trained ``model``; distances are those of about 65,536
        rows, in blocks that lie evenly among all."""
        rows, statistics, step = self.rows, statistics_of(model), 1
        index = CenterIndex(self.state.centers)
        for number, (z, weights) in enumerate(rows.blocks()):
            if number == 0:
                step = max(1, rows.n_rows // rows.group.size // max(len(z), _LOOKED_AT))
            if number % step == 0:
                near = index.nearest(z)
                ones = np.ones(len(z)) if weights is None else weights.cpu().numpy()
                squares = near.squared_distances.cpu().numpy()
                statistics.count(near.labels.cpu().numpy(), squares, ones)
        rows.group.sum_(torch.from_numpy(statistics.distances))
        return statistics
