"""torch.export: a program that torch loads without dink. ``torch.export.load(path).module()(rows)``
takes rows (B, D) float32, or float64 with an offset, and gives the cluster (B,) int64, the distance
(B,) float32 and the probabilities (B, K) float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dinkcli.models.model import Model


class Clusters(nn.Module):
    shift: Tensor
    centers: Tensor
    half_norms: Tensor
    map: Tensor | None
    origin: Tensor | None
    offset: Tensor | None
    owners: Tensor | None
    ownership: Tensor | None

    def __init__(self, model: Model):
        super().__init__()
        self.cosine = model.metric == "cosine"
        self.temperature = max(model.temperature, 1e-30)
        arrays = {"map": model.map, "origin": model.origin, "offset": model.offset}
        several = model.parts is not None
        arrays["owners"] = model.center_clusters if several else None
        arrays["ownership"] = model.ownership if several else None
        for name, values in arrays.items():
            if values is None:
                setattr(self, name, None)  # torch cannot export a buffer that is not there
            else:
                self.register_buffer(name, torch.from_numpy(values))
        centers = torch.from_numpy(model.centers)
        shift = centers.mean(0)
        self.register_buffer("shift", shift)
        self.register_buffer("centers", centers - shift)
        self.register_buffer("half_norms", (centers - shift).square().sum(1) / 2)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.offset is not None:
            rows = (rows - self.offset).float()
        if self.cosine:
            rows = nn.functional.normalize(rows, dim=1)
        if self.map is not None and self.origin is not None:
            rows = (rows - self.origin) @ self.map
        shifted = rows - self.shift
        scores = torch.addmm(self.half_norms, shifted, self.centers.T, alpha=-1)
        squared = scores * 2 + shifted.square().sum(1, keepdim=True)
        distances = squared.clamp(min=0).sqrt()
        exponents = (scores - scores.amin(1, keepdim=True)) * (-2 / self.temperature)
        labels, probabilities = scores.argmin(1), torch.softmax(exponents, dim=1)
        if self.owners is not None and self.ownership is not None:
            labels, probabilities = self.owners[labels], probabilities @ self.ownership
        return labels, distances.amin(1), probabilities


def write(model: Model, path: str) -> None:
    """Writes the exported program, for any number of rows."""
    kind = torch.float32 if model.offset is None else torch.float64
    example = torch.zeros(2, model.n_features, dtype=kind)
    shapes = {"rows": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(Clusters(model).eval(), (example,), dynamic_shapes=shapes)
    about = {"metric": model.metric, "fingerprint": model.fingerprint}
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files=about)
