"""``dink evaluate``."""

from __future__ import annotations

from dinkcli.cli import options as shared
from dinkcli.cli.console import rows_shown, say, say_bad_rows, show_result
from dinkcli.cli.paths import load_model


def evaluate(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    labels: list[str] | None = shared.LABELS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Measure the clusters, alone or against known classes.

    The inputs are read twice.

    Examples:
        dink evaluate emb.dink.safetensors emb.npy
        dink evaluate emb.dink.safetensors emb.parquet --labels topic
        dink evaluate emb.dink.safetensors emb.npy --labels topics.txt
    """
    model = load_model(model_path, inputs)
    data = rows.open(model, inputs, labels=labels)

    from dinkcli.insight.evaluate import evaluate as core

    with rows_shown(data, shown.silent) as on_rows:
        result = core(model, data, device=rows.device, on_rows=on_rows)
    show_result(result, shown.as_json)
    if not shown.as_json:
        say_bad_rows(result.quality.bad_rows, shown.quiet)
    if result.unlabelled and not shown.silent:
        say(f"{result.unlabelled} rows without a label are left out of the agreement")
