"""The page's drawings, by Bokeh. Colours of text and lines follow the page's theme (page.js)."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    HoverTool,
    LinearColorMapper,
    Range1d,
    WheelZoomTool,
)
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from dinkcli.insight.overview import history
from dinkcli.insight.report.gather import Material
from dinkcli.models.model import Model
from dinkcli.models.tree import members, squared_distances, ward
from dinkcli.training.step import PHASES

_MOST_IN_HEAT_MAP = 200
_PHASE_COLOURS = {"anneal": "#c2571a", "refine": "#7a5cc4", "pass": "#1b7f79"}
_GOLDEN = 0.61803398875


def palette(n_clusters: int) -> list[str]:
    """K colours that stay apart from each other, on white and on black."""
    colours = []
    for j in range(n_clusters):
        lightness = (0.47, 0.58, 0.40)[j % 3]
        rgb = colorsys.hls_to_rgb((j * _GOLDEN) % 1.0, lightness, 0.62)
        colours.append("#" + "".join(f"{round(255 * value):02x}" for value in rgb))
    return colours


def row_map(material: Material) -> dict[str, Any]:
    """The rows as a scatter of points: hover, tap, wheel."""
    n_points, k = len(material.points), len(material.anchors)
    columns: dict[str, Any] = {
        "x": material.points[:, 0],
        "y": material.points[:, 1],
        "cluster": material.labels,
        "distance": material.distances,
        "row": material.rows.astype(np.int32 if material.rows.max() < 2**31 else np.float64),
    }
    tooltips = [("cluster", "@cluster"), ("row", "@row{0}")]
    for name, values in (("id", material.names), ("text", material.texts)):
        if values is not None:
            columns[name] = values
            tooltips.append((name, f"@{name}"))
    source = ColumnDataSource(columns, name="rows")
    plot = figure(
        tools="pan,box_zoom,lasso_select,tap,reset,save",
        output_backend="webgl",
        sizing_mode="stretch_both",
        min_height=320,
        name="map",
        match_aspect=True,
    )
    mapper = LinearColorMapper(palette=palette(k), low=-0.5, high=k - 0.5)
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size=float(np.interp(np.log10(n_points), [2, 3, 4, 4.7], [10, 8, 5, 3.2])),
        color={"field": "cluster", "transform": mapper},
        line_color=None,
        fill_alpha=0.7,
        nonselection_fill_alpha=0.05,
        selection_fill_alpha=0.95,
    )
    plot.add_tools(HoverTool(renderers=[points], tooltips=tooltips, attachment="vertical"))
    wheel = WheelZoomTool()
    plot.add_tools(wheel)
    plot.toolbar.active_scroll = wheel
    _bare(plot)
    return _item(plot)


def heat_map(model: Model, material: Material) -> dict[str, Any]:
    """Distances between centres, in the order of Ward's tree."""
    shown = (-material.quality.sizes).argsort(kind="stable")[:_MOST_IN_HEAT_MAP]
    centers = model.cluster_centers[shown].astype(np.float64)
    order = members(ward(centers, material.quality.sizes[shown]))[-1]
    ordered = centers[order]
    distances = np.sqrt(squared_distances(ordered, ordered)).astype(np.float32)
    np.fill_diagonal(distances, 0)
    k, numbers = len(order), shown[order].astype(np.float32)
    across, down = np.meshgrid(numbers, numbers)
    source = ColumnDataSource({"image": [distances], "across": [across], "down": [down]})
    apart = distances[~np.eye(k, dtype=bool)]
    low, high = (float(apart.min()), float(apart.max())) if k > 1 else (0.0, 1.0)
    # From strong to faint: near centres stand out, on white and on black.
    mapper = LinearColorMapper(
        palette=Viridis256, low=low, high=high if high > low else low + 1, low_color="#808080"
    )
    plot = figure(
        tools="reset,save",
        x_range=Range1d(0, k),
        y_range=Range1d(k, 0),
        sizing_mode="stretch_width",
        aspect_ratio=1.15,
        name="heat",
    )
    image = plot.image(image="image", source=source, x=0, y=0, dw=k, dh=k, color_mapper=mapper)
    tooltips = [("clusters", "@down{0} and @across{0}"), ("distance", "@image{0.000}")]
    plot.add_tools(HoverTool(renderers=[image], tooltips=tooltips))
    bar = ColorBar(color_mapper=mapper, ticker=BasicTicker(desired_num_ticks=5), width=12)
    bar.background_fill_color = None
    plot.add_layout(bar, "right")
    _bare(plot)
    return _item(plot)


def training_curve(model: Model) -> dict[str, Any] | None:
    """Inertia by step, a line for each phase; None for a model without history."""
    steps = history(model)
    if not steps:
        return None
    plot = figure(
        tools="pan,box_zoom,reset,save",
        sizing_mode="stretch_width",
        height=300,
        x_axis_label="report of training",
        y_axis_label="inertia of all rows",
        name="curve",
    )
    for phase, colour in _PHASE_COLOURS.items():
        at = [i for i, step in enumerate(steps) if step["phase"] == phase]
        if at:
            columns = {
                "step": [i + 1 for i in at],
                "inertia": [float(steps[i]["inertia"]) for i in at],
                "temperature": [str(steps[i]["temperature"]) for i in at],
            }
            source = ColumnDataSource(columns)
            # From the last point of the phase before: one curve in several colours.
            line = range(max(0, at[0] - 1), at[-1] + 1)
            heights = [float(steps[i]["inertia"]) for i in line]
            plot.line([i + 1 for i in line], heights, color=colour, line_width=2)
            dots = plot.scatter(
                "step",
                "inertia",
                source=source,
                color=colour,
                size=6,
                legend_label=PHASES[phase],
            )
            tooltips = [
                ("step", "@step"),
                ("inertia", "@inertia{0.00 a}"),
                ("temperature", "@temperature"),
            ]
            plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips))
    plot.legend.background_fill_alpha = 0
    plot.legend.border_line_color = None
    return _item(plot)


def _bare(plot: figure) -> None:
    """Without axes and grid: positions have no unit."""
    plot.axis.visible = False
    plot.grid.visible = False


def _item(plot: figure) -> dict[str, Any]:
    plot.toolbar.logo = None
    plot.toolbar.autohide = plot.name != "map"
    plot.background_fill_color = None
    plot.border_fill_color = None
    plot.outline_line_color = None
    plot.grid.grid_line_alpha = 0.25
    return json_item(plot, target=plot.name)
