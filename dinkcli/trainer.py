"""Training: a generator of steps. No printing, no files; whoever drives it shows and saves.

Shapes: N rows, B rows in a batch, K clusters, D features.

With ``temperature="auto"`` the centres are seeded on a sample, annealed there (the shrink loss
at a falling temperature), refined by moving whole centres, and then updated by passes over all
rows at temperature 0 until the inertia stops falling. A fixed temperature trains the objective
at that temperature; infinity is the paper's literal one, by gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dinkcli.anneal import anneal
from dinkcli.head import DinkClusterHead
from dinkcli.lloyd import Statistics, farthest_rows, full_pass
from dinkcli.objective import dilation_loss
from dinkcli.options import TrainOptions
from dinkcli.refine import State, refine
from dinkcli.rows import RowSource
from dinkcli.sample import Sample
from dinkcli.schedule import annealing_batch, effort, sample_size, seeding_size
from dinkcli.seeding import seed_centers, too_few_rows

_MAX_PASSES = 30
_LITERAL_EPOCHS = 50
_LITERAL_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Step:
    """What is known after one update of the centres.

    Attributes:
        phase: "anneal", "refine" or "pass" (one over all rows).
        done, total: position in the phase; ``total`` is a bound for refine and pass.
        rows: rows that this step read.
        temperature: that the step was made at.
        inertia: sum of squared distances to the nearest centre, scaled to all N rows.
        dilation_loss, shrink_loss: the paper's Eq. 5 and 6 (Eq. 6 on the rows of the step).
        smallest, largest: share of rows in the smallest and largest cluster.
        start: which of the ``n_init`` starts, from 1.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: an infinite temperature becomes the string "inf"."""
        return {k: "inf" if v == math.inf else v for k, v in asdict(self).items()}


class Trainer:
    """Fits K centres to the rows of a source.

    ``steps()`` runs the training; afterwards (or in between) ``cluster_centers`` are the centres
    in the data's own coordinates, and ``statistics`` those of the last pass over all rows.

    Args:
        initial: (K, D) centres to start from, for ``options.init`` "given".
    """

    def __init__(self, rows: RowSource, options: TrainOptions, initial: Tensor | None = None):
        self.rows = rows
        self.options = options
        self.initial = initial
        self.generator = torch.Generator().manual_seed(options.seed)
        self.centers = torch.zeros(options.n_clusters, rows.n_features, device=rows.device)
        self.statistics = Statistics.zeros(self.centers)
        self._start = 1

    @property
    def cluster_centers(self) -> Tensor:
        """(K, D) float32 on the CPU, in the coordinates of the data."""
        return self.centers.cpu() + self.rows.shift

    def steps(self) -> Iterator[Step]:
        """Trains; yields after every update.

        Raises:
            InputError: fewer distinct rows than clusters.
        """
        options = self.options
        size = sample_size(
            self.rows.n_rows, options.n_clusters, self.rows.n_features, self.rows.memory
        )
        sample = Sample(*self.rows.sample(size, self.generator), self._project)
        if options.temperature == "auto":
            yield from self._best_start(sample)
            del sample
            yield from self._passes(0.0)
            return
        self._seed(sample)
        del sample
        if options.literal:
            yield from self._literal_passes()
        else:
            yield from self._passes(float(options.temperature))

    def _best_start(self, sample: Sample) -> Iterator[Step]:
        """Seeds, anneals and refines ``n_init`` times, and keeps the lowest inertia."""
        n_init = self.options.n_init or effort(len(sample), *self.centers.shape).n_init
        best: State | None = None
        for self._start in range(1, n_init + 1):
            self._seed(sample)
            yield from self._anneal(sample)
            if self.options.refine:
                yield from self._refine(sample)
            if n_init > 1:
                now = State.of(sample, self.centers)
                best = now if best is None or now.inertia < best.inertia else best
                self.centers = best.centers

    def _seed(self, sample: Sample) -> None:
        if self.initial is not None:
            centers = (self.initial - self.rows.shift).to(sample.z)
        else:
            options = self.options
            part = seeding_size(len(sample), options.n_clusters)
            centers = seed_centers(sample, options.n_clusters, options.init, self.generator, part)
        self.centers = self._project(centers)

    def _project(self, centers: Tensor) -> Tensor:
        """Under cosine, centres have norm 1 (spherical k-means); a zero mean stays zero."""
        if self.options.metric == "cosine":
            return torch.nn.functional.normalize(centers, dim=1)
        return centers

    def _anneal(self, sample: Sample) -> Iterator[Step]:
        options, done = self.options, 0
        steps = effort(len(sample), *self.centers.shape).annealing_steps
        size = options.batch_size or annealing_batch(len(sample), options.n_clusters)
        size = min(size, len(sample))
        for now in anneal(sample, self.centers, size, steps, options.dilation_weight):
            self.centers = now.centers
            rows, done = (now.done - done) * size, now.done
            yield self._step(
                "anneal",
                (done, steps),
                rows,
                now.temperature,
                now.shares,
                now.mean_inertia,
                sample.paper_shrink_loss(now.centers),
            )

    def _refine(self, sample: Sample) -> Iterator[Step]:
        how = effort(len(sample), *self.centers.shape)
        most = max(1, self.options.n_clusters // 4)
        for moved, best in refine(sample, self.centers, self.generator, how):
            self.centers = best.centers
            rows = len(best.near.labels)
            part = sample[:rows]
            sizes = part.cluster_weights(best.near.labels, len(self.centers))
            most = max(most, moved)
            yield self._step(
                "refine",
                (most - moved, most),
                rows,
                0.0,
                sizes / part.total_weight,
                best.inertia / part.total_weight,
                sample.paper_shrink_loss(best.centers),
            )

    def _passes(self, temperature: float) -> Iterator[Step]:
        """Passes over all rows until the objective falls by less than ``tol`` of itself.

        The last pass measures the centres and leaves them as they are: true centroids of the
        partition before, and the statistics are exactly theirs.
        """
        limit = self.options.epochs or _MAX_PASSES
        weight = 0.0 if self.options.temperature == "auto" else self.options.dilation_weight
        previous = math.inf
        for done in range(limit + 1):
            found = full_pass(self.rows.blocks(), self.centers, temperature)
            reseeded = 0
            if temperature == 0 and not found.counts.all():
                found, reseeded = self._fill_empty(found)
            self.statistics = found
            yield self._pass_step(done, limit, temperature, reseeded)
            if done == limit or abs(previous - found.shrink) <= self.options.tol * found.shrink:
                return
            previous = found.shrink if not reseeded else math.inf
            self.centers = self._project(found.means(self.centers, weight))

    def _fill_empty(self, found: Statistics) -> tuple[Statistics, int]:
        """Moves the centres of empty clusters onto far rows until no cluster is empty."""
        reseeded = 0
        while True:
            empty = (found.counts == 0).nonzero()[:, 0]
            if len(empty) == 0:
                return found, reseeded
            far = farthest_rows(self.rows.blocks(), self.centers, len(empty))
            if len(far) == 0:
                raise too_few_rows(len(self.centers) - len(empty), len(self.centers))
            # Each such row is now at distance 0 from a centre of its own, so the inertia falls
            # with every round and the loop ends.
            self.centers = self.centers.clone()
            self.centers[empty[: len(far)]] = far
            reseeded += len(far)
            found = full_pass(self.rows.blocks(), self.centers)

    def _literal_passes(self) -> Iterator[Step]:
        """Gradient descent on shrink + w * dilation (Eq. 5 and 6) by Adam."""
        limit = self.options.epochs or _LITERAL_EPOCHS
        size = self.options.batch_size or annealing_batch(self.rows.n_rows, len(self.centers))
        head = DinkClusterHead(*self.centers.shape).to(self.centers.device)
        head.reset_cluster_centers(self.centers)
        optimizer = torch.optim.Adam(head.parameters(), lr=_LITERAL_LEARNING_RATE)
        for done in range(limit + 1):
            if done:
                for batch, _ in self.rows.batches(size, self.options.seed, done):
                    dilation, shrink = head(batch)
                    optimizer.zero_grad()
                    (shrink + self.options.dilation_weight * dilation).backward()
                    optimizer.step()
            self.centers = self._project(head.cluster_centers.detach().clone())
            self.statistics = full_pass(self.rows.blocks(), self.centers)
            yield self._pass_step(done, limit, math.inf)

    def _pass_step(self, done: int, limit: int, temperature: float, reseeded: int = 0) -> Step:
        found = self.statistics
        weight = self.rows.total_weight
        shrink = found.paper_shrink_loss(self.centers)
        return self._step(
            "pass",
            (done, limit),
            self.rows.n_rows,
            temperature,
            found.counts / weight,
            found.inertia / weight,
            shrink,
            reseeded,
        )

    def _step(
        self,
        phase: str,
        position: tuple[int, int],
        rows: int,
        temperature: float,
        shares: Tensor,
        mean_inertia: float,
        shrink: float,
        reseeded: int = 0,
    ) -> Step:
        return Step(
            phase=phase,
            done=position[0],
            total=position[1],
            rows=rows,
            temperature=temperature,
            inertia=mean_inertia * self.rows.total_weight,
            dilation_loss=float(dilation_loss(self.centers)),
            shrink_loss=shrink,
            smallest=float(shares.min()),
            largest=float(shares.max()),
            start=self._start,
            reseeded=reseeded,
        )
