"""Training: a generator of steps. No printing, no files; whoever drives it shows and saves.

Shapes: N rows, B rows in a batch, K clusters, D features.

With ``temperature="auto"`` the centres are seeded on a sample, annealed on its main axes (the
shrink loss at a falling temperature), refined there by moving whole centres, and then updated by
passes over all rows at temperature 0 until the inertia stops falling. A fixed temperature trains
the objective at that temperature; infinity is the paper's literal one, by gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dinkcli.head.objective import dilation_loss
from dinkcli.nearest.float_range import refuse_overflow
from dinkcli.options import LEARNED, TrainOptions, most_rows
from dinkcli.training.anneal import Annealing, anneal, updates_per_report
from dinkcli.training.capacity import MOST_PASSES, limited_passes, limited_start
from dinkcli.training.literal import descend
from dinkcli.training.neighbours import follow_neighbours, neighbourhood_size
from dinkcli.training.passes import Pass, Passes
from dinkcli.training.progress import Descending, Passing, Progress
from dinkcli.training.refine import Refining, State, refine
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import effort, sample_size, seeding_size
from dinkcli.training.seeding import Seeds, seed_centers
from dinkcli.training.step import Step
from dinkcli.training.subspace import Subspace, main_axes, number_of_axes

_SAME_END = 1e-5  # of the inertia; other optima of small data lie ten times as far apart or more


class Trainer:
    """Fits K centres to the rows of a source.

    ``steps()`` runs the training; afterwards (or in between) ``cluster_centers`` are the centres
    in the data's own coordinates, and ``counts`` the weight of each cluster.

    All that changes while training is in ``at`` and in the state of ``generator``. Whenever
    ``steps()`` rests, another trainer of the same rows and options that is given both goes on to
    the same result, bit for bit on the same CPU.

    Args:
        initial: (K, D) centres to start from, for ``options.init`` "given".
    """

    def __init__(self, rows: RowSource, options: TrainOptions, initial: Tensor | None = None):
        self.rows = rows
        self.options = options
        self.initial = initial
        self._project = rows.project
        self._starts = 1
        self.generator = torch.Generator().manual_seed(options.seed)
        self.free_inertia: float | None = None  # before sizes were limited
        self._before: Progress | None = None
        self.at = Progress.begin(options.k, rows.n_features, rows.device)

    @property
    def to_save(self) -> Progress:
        """All that the next step depends on."""
        return self._before or self.at

    @property
    def cluster_centers(self) -> Tensor:
        """(K, D) float32 on the CPU, in the coordinates of the data less its offset, or those under
        their map."""
        centers = self.at.centers.cpu()
        return centers + self.rows.shift if self.rows.map is None else centers

    @cached_property
    def sample(self) -> Sample:
        """The rows that centres are seeded, annealed and refined on; the first random draw."""
        n_rows, n_features = self.rows.n_rows, self.rows.n_features
        memory = self.rows.memory * self.rows.group.size
        size = sample_size(n_rows, self.options.k, n_features, memory)
        return self.rows.sample(size, self.generator)

    def steps(self) -> Iterator[Step | None]:
        """Trains; yields a ``Step`` to report, or None where it could rest as well.

        Raises:
            InputError: fewer distinct rows than clusters.
        """
        options, at = self.options, self.at
        if options.temperature == "auto":
            if not isinstance(at.loop, Passing):
                search = self._follow_neighbours if options.metric == LEARNED else self._best_start
                yield from search(self.sample)
                at.loop = Passing.begin(at.centers)
        elif not isinstance(at.loop, Passing | Descending):
            self._seed(self.sample)
            literal = options.literal
            at.loop = Descending.begin(at.centers) if literal else Passing.begin(at.centers)
        self.__dict__.pop("sample", None)  # the memory is wanted elsewhere
        temperature = 0.0 if options.temperature == "auto" else float(options.temperature)
        if isinstance(at.loop, Descending):
            passes = descend(self.rows, options, at, at.loop)
        else:
            assert isinstance(at.loop, Passing)
            passes = Passes(self.rows, options, at, temperature).run(at.loop)
        for done in passes:
            yield None if done is None else self._pass_step("pass", done, temperature)
        yield from self._limit_sizes()

    def _follow_neighbours(self, sample: Sample) -> Iterator[Step | None]:
        """Learns the map of the rows; the centres are then means under it."""
        yield from self._best_start(sample)
        part = sample[: neighbourhood_size(len(sample), self.options.k)]
        matrix, self.at.centers = follow_neighbours(part, self.at.centers)
        self.rows.learn(matrix)

    def _best_start(self, sample: Sample) -> Iterator[Step | None]:
        """Seeds, anneals and refines ``n_init`` times, and keeps the lowest inertia; where nobody
        said how often, two starts that end there are enough."""
        at = self.at
        if len(at.centers) == 1:
            at.centers = sample.means(at.centers, sample.z.new_zeros(len(sample.z)).long())
            return
        n_init = self.options.n_init or effort(len(sample), *at.centers.shape).n_init
        self._starts = n_init
        axes = main_axes(sample, self.options.k)
        while at.start <= n_init:
            if isinstance(at.loop, Annealing | Refining):
                space = Subspace.on(sample, axes, at.loop.centers.shape[1])
            else:
                labels = self._seed(sample)
                space = Subspace.on(sample, axes, number_of_axes(sample, axes, at.centers))
                at.loop = Annealing.begin(space.sample, space.into(at.centers), labels)
            if isinstance(at.loop, Annealing):
                yield from self._anneal(space, at.loop)
                at.loop = Refining.begin(at.loop.centers, at.loop.approximate)
            if isinstance(at.loop, Refining):
                labels = None
                if self.options.refine:
                    labels = yield from self._refine(space, at.loop)
                at.centers = space.means(at.loop.centers, labels, at.loop.approximate)
            if n_init > 1:
                now, before = State.of(sample, at.centers).inertia, at.best_inertia
                if at.best is None or now < before:
                    at.best, at.best_inertia = at.centers, now
                agree = math.isclose(now, before, rel_tol=_SAME_END)
                at.centers = at.best
                if agree and not self.options.n_init:
                    return
            at.loop = None
            at.start += 1
        at.start = n_init

    def _seed(self, sample: Sample) -> Tensor | None:
        """Sets the first centres; the nearest of them of the rows that annealing begins with,
        where that is known."""
        if self.initial is not None:
            centers = self.initial - self.rows.shift
            refuse_overflow(centers, "`init`")
            seeds = Seeds(centers.to(sample.z))
        else:
            options = self.options
            part = seeding_size(len(sample), options.k)
            seeds = seed_centers(sample, options.k, options.init, self.generator, part)
        self.at.centers = self._project(seeds.centers)
        return seeds.labels

    def _anneal(self, space: Subspace, loop: Annealing) -> Iterator[Step | None]:
        options, at, sample = self.options, self.at, space.whole
        how = effort(len(sample), *at.centers.shape)
        steps, size = how.annealing_steps, options.batch_size or how.annealing_batch
        size = min(size, len(sample))
        for mean_inertia in anneal(space.sample, loop, size, steps, options.dilation_weight):
            at.counts = loop.shares * self.rows.total_weight
            if mean_inertia is None:
                yield None
                continue
            at.centers = space.out_of(loop.centers)
            yield self._step(
                "anneal",
                mean_inertia + space.left,
                done=loop.done,
                total=steps,
                rows=updates_per_report(steps) * size,
                temperature=loop.temperature,
                shrink_loss=sample.paper_shrink_loss(at.centers),
            )

    def _refine(self, space: Subspace, loop: Refining) -> Generator[Step, None, Tensor | None]:
        """Returns the labels of all rows of the sample, where the last round has found them."""
        at, labels = self.at, None
        how = effort(len(space.whole), *at.centers.shape)
        for moved, best in refine(space.sample, loop, self.generator, how):
            part = space.sample[: best.rows]
            sizes = part.cluster_weights(best.near.labels, len(best.centers))
            at.centers = space.out_of(best.centers)
            at.counts = sizes * (self.rows.total_weight / part.total_weight)
            yield self._step(
                "refine",
                best.inertia / part.total_weight + space.left,
                done=loop.largest - moved,
                total=loop.largest,
                rows=best.rows,
                temperature=0.0,
                shrink_loss=space.whole.paper_shrink_loss(at.centers),
            )
            labels = best.near.labels if best.rows == len(space.sample) else None
        return labels

    def _limit_sizes(self) -> Iterator[Step]:
        """Passes under the limit of sizes, if there is one. A training that is saved on its way
        through them begins them once more."""
        options, at, rows = self.options, self.at, self.rows
        if options.max_size is None:
            return
        limit = most_rows(options.max_size, rows.n_rows, options.k)
        self.free_inertia = float(torch.as_tensor(at.cluster_inertia).sum())
        self._before = at
        at = self.at = replace(at)
        if rows.weights is not None or float(at.counts.max()) > limit:
            at.centers = limited_start(rows, at.centers, limit, options.seed, options.tol)
        passes = limited_passes(rows.blocks, rows.project, at.centers, limit, options.tol)
        for number, (centers, found) in enumerate(passes):
            at.centers = centers
            at.measured(found)
            yield self._pass_step("limit", Pass(number, MOST_PASSES, found), 0.0)

    def _pass_step(self, phase: str, done: Pass, temperature: float) -> Step:
        return self._step(
            phase,
            done.found.inertia / self.rows.total_weight,
            done=done.number,
            total=done.limit,
            rows=self.rows.n_rows,
            temperature=temperature,
            shrink_loss=done.found.paper_shrink_loss(self.at.centers),
            reseeded=done.reseeded,
        )

    def _step(self, phase: str, mean_inertia: float, **known: Any) -> Step:
        """With what is ``known`` about the step, by the names of its fields, and about all."""
        shares = self.at.counts / self.rows.total_weight
        dilation = dilation_loss(self.at.centers).to(shares)
        # All at once: a GPU takes as long for three answers as for thirty.
        dilation_now, smallest, largest = torch.stack([dilation, *shares.aminmax()]).tolist()
        return Step(
            phase=phase,
            inertia=mean_inertia * self.rows.total_weight,
            dilation_loss=dilation_now,
            smallest=smallest,
            largest=largest,
            start=self.at.start,
            starts=self._starts,
            **known,
        )
