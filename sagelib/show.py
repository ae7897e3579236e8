"""Images, maps, curves and tables for the chapters. The only module that imports matplotlib."""
from __future__ import annotations

import functools
import inspect
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

Image = Tensor | np.ndarray
Curve = list[dict[str, Any]]

STALE = "no longer agrees with the tables above"  # what ci/book looks for in the chapters it ran
MAPS: dict[str, dict[str, Any]] = {
    "saliency": dict(cmap="magma", vmin=0), "mask": dict(cmap="coolwarm_r", vmin=0, vmax=1),
    "value": dict(cmap="viridis")
}
COLOURS = {
    "vanilla": "#5b6470", "mixup": "#0072b2", "cutmix": "#d55e00", "manifold_mixup": "#332288",
    "saliencymix": "#c98a00", "puzzlemix": "#cc79a7", "comixup": "#56b4e9",
    "guidedmixup": "#882255", "rmix": "#999933", "sage": "#009e73", "sage_merged": "#117733",
    "transmix": "#aa4499", "sage_attention": "#44aa99"
}
MARKERS = dict(zip(COLOURS, "osD^v<>*pPXhd", strict=True))
plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 80, "font.size": 10, "axes.spines.top": False,
                     "axes.spines.right": False, "image.interpolation": "nearest"})


def grid(rows: Sequence[Tensor | Sequence[Image | None]],
         titles: Sequence[str] | Sequence[Sequence[str]] | None = None,
         labels: Sequence[str] | None = None, kind: str | Sequence[str] = "saliency",
         size: float = 1.5, jpeg: bool = False) -> None:
    """Rows of images (3, H, W), floats in [0, 1] or bytes, and of maps (1, H, W) or (H, W).

    `titles` are above the columns: a list, or one list for each row. `labels` are left of the
    rows. `kind` of the maps: "saliency", "mask" (blue: the first image, red: the second) or
    "value"; one for all, or a list, one for each column. None leaves a place empty. `jpeg`: for
    photographs, which take four times as many bytes as PNG.
    """
    figure = grid_figure(rows, titles, labels, kind, size)
    if jpeg:
        _show_jpeg(figure)
    else:
        plt.show()


def grid_figure(rows: Sequence[Tensor | Sequence[Image | None]],
                titles: Sequence[str] | Sequence[Sequence[str]] | None = None,
                labels: Sequence[str] | None = None, kind: str | Sequence[str] = "saliency",
                size: float = 1.5) -> Figure:
    """The figure that `grid` shows, to save it: `size` is of an image, in inches."""
    columns = max(map(len, rows))
    kinds = [kind] * columns if isinstance(kind, str) else kind
    each = bool(titles) and isinstance(titles[0], (list, tuple))
    above: Any = titles if each else [titles]  # a list for each row, or for the first
    height = size * len(rows) * (1.18 if each else 1) + (0.25 if titles else 0)
    figure, axes = plt.subplots(len(rows), columns, squeeze=False, layout="constrained",
                                figsize=(size * columns, height))
    for i, row in enumerate(rows):
        for j, axis in enumerate(axes[i]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            z = row[j] if j < len(row) else None
            if z is not None:
                picture(axis, z, kinds[j])
                if titles and (each or i == 0):
                    axis.set_title(above[i][j], fontsize=10)
        if labels:
            axes[i, 0].set_ylabel(labels[i], fontsize=10)
    return figure


def _show_jpeg(figure):
    from IPython.display import Image as Shown
    from IPython.display import display

    data = io.BytesIO()
    figure.savefig(data, format="jpeg", pil_kwargs={"quality": 85})
    plt.close(figure)  # or the notebook shows it again, as PNG
    display(Shown(data.getvalue(), format="jpeg"))


def picture(axis: Axes, z: Image, kind: str = "saliency") -> AxesImage:
    """One image (3, H, W) or one map (1, H, W) or (H, W), drawn on an axis."""
    z = torch.as_tensor(z).detach().cpu().squeeze()
    if z.ndim == 3:
        return axis.imshow(z.permute(1, 2, 0).numpy())
    return axis.imshow(z.float().numpy(), **MAPS[kind])


def bars(values: Mapping[str, float], ylabel: str, title: str | None = None,
         errors: Sequence[float] | None = None, limit: tuple[float, float] | None = None,
         size: tuple[float, float] = (6, 2.8)) -> None:
    """One bar for each name in `values` (name -> number), the number written on it."""
    _, axis = plt.subplots(figsize=size, layout="constrained")
    drawn = axis.bar(list(values), list(values.values()), yerr=errors, capsize=4,
                     color=[COLOURS.get(name, "#888888") for name in values])
    axis.bar_label(drawn, fmt="%.2f", padding=2)
    axis.set(ylabel=ylabel, title=title)
    if sum(map(len, values)) > 8 * size[0]:  # names that would run into each other
        axis.tick_params(axis="x", rotation=20)
    if limit is not None:
        axis.set_ylim(*limit)
    plt.show()


def curves(runs: Mapping[str, Curve | list[Curve]], key: str = "test_accuracy",
           ylabel: str = "test accuracy, %", size: tuple[float, float] = (6.4, 3.2),
           draw: bool = True) -> Figure | None:
    """Learning curves of `runs`: name -> curve, one dict an epoch, or a list with a curve a seed.

    The seeds of a name have one colour. `draw=False` returns the figure instead of showing it.
    """
    fig, axis = plt.subplots(figsize=size, layout="constrained")
    for name, found in runs.items():
        of_seeds: list[Any] = found if found and isinstance(found[0], list) else [found]
        for k, curve in enumerate(of_seeds):
            shown = [e for e in curve if key in e]  # not every epoch need be evaluated
            axis.plot([e["epoch"] + 1 for e in shown], [e[key] for e in shown], marker="o",
                      markersize=3, color=COLOURS.get(name), label=None if k else name)
    axis.set(xlabel="epoch", ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    if not draw:
        return fig
    plt.show()


def at_most_every(seconds: float, function: Callable[..., object],
                  clock: Callable[[], float] = time.monotonic) -> Callable[..., None]:
    """`function`, except that a call within `seconds` after the end of the last is left out.

    For figures that are redrawn while something runs: each costs about a tenth of a second. Draw
    once more when it has ended. `clock` gives the time in seconds.
    """
    ended = -math.inf

    @functools.wraps(function)
    def called(*args: object) -> None:
        nonlocal ended
        if clock() - ended >= seconds:
            function(*args)
            ended = clock()

    return called


def groups(values: Mapping[str, Sequence[float]], joined: Mapping[str, Sequence[str]], xlabel: str,
           title: str | None = None) -> None:
    """A critical-difference diagram: methods at their means, and bars that join groups of them.

    values: name -> numbers, one per seed; a row each, in this order. joined: letter -> the names
    that its bar joins; a dot on the bar marks each of them.
    """
    names, letters = list(values), list(joined)
    _, (axis, side) = plt.subplots(
        1, 2, sharey=True, layout="constrained", width_ratios=[10, 0.5 + 0.5 * len(joined)],
        figsize=(5.6 + 0.25 * len(joined), 0.9 + 0.3 * len(names)))
    for row, (name, found) in enumerate(values.items()):
        colour = COLOURS.get(name, "#888888")
        axis.axhline(row, color="#dddddd", lw=0.8, zorder=0)
        axis.scatter(found, [row] * len(found), s=16, color=colour, alpha=0.45, lw=0)
        axis.plot([float(np.mean(found))] * 2, [row - 0.32, row + 0.32], color=colour, lw=2.5)
    for k, letter in enumerate(letters):
        rows = [names.index(name) for name in joined[letter]]
        side.plot([k, k], [min(rows), max(rows)], color="#333333", lw=2)
        side.scatter([k] * len(rows), rows, color="#333333", s=22, zorder=3)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel=xlabel, title=title,
             ylim=(len(names) - 0.5, -0.5))
    side.set(xticks=range(len(letters)), xticklabels=letters, xlim=(-0.7, len(letters) - 0.3))
    side.xaxis.tick_top()
    side.tick_params(length=0)
    side.spines[:].set_visible(False)
    side.set_visible(bool(letters))
    axis.title.set_fontsize(10)
    plt.show()


def scatter(points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str,
            title: str | None = None, size: tuple[float, float] = (6.2, 3.5)) -> None:
    """A mark for each method: name -> (x, y). Dashed lines go through the mark of vanilla."""
    _, axis = plt.subplots(figsize=size, layout="constrained")
    for name, (x, y) in sorted(points.items(), key=lambda item: [*COLOURS, item[0]].index(item[0])):
        axis.scatter(x, y, color=COLOURS.get(name, "#888888"), marker=MARKERS.get(name, "h"), s=48,
                     label=name, zorder=2)
    if "vanilla" in points:
        axis.axvline(points["vanilla"][0], color="#888888", ls="--", lw=0.8)
        axis.axhline(points["vanilla"][1], color="#888888", ls="--", lw=0.8)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.margins(0.12)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()


def reliability(bins: Mapping[str, Sequence[float]], title: str | None = None,
                size: tuple[float, float] = (4.2, 3.4)) -> None:
    """Reliability diagram of `bins`, as calibration.scores gives: count, accuracy, confidence."""
    _, axis = plt.subplots(figsize=size, layout="constrained")
    n = len(bins["count"])
    rows = zip(bins["count"], bins["accuracy"], bins["confidence"], strict=True)
    for k, (count, right, sure) in enumerate(rows):
        if count:
            axis.bar((k + 0.5) / n, right, 0.9 / n, color="#0072b2")
            axis.plot([(k + 0.1) / n, (k + 0.9) / n], [sure] * 2, color="#d55e00", lw=2)
    axis.plot([0, 1], [0, 1], color="#5b6470", ls="--", lw=1)
    axis.set(xlabel="confidence", ylabel="accuracy (bar), confidence (line)", title=title,
             xlim=(0, 1), ylim=(0, 1))
    plt.show()


class Markdown:
    """Text that a notebook shows as Markdown, and a terminal as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_markdown_(self):
        return self.text

    def __repr__(self) -> str:
        return self.text


def table(header: Sequence[object], rows: Iterable[Iterable[object]],
          caption: str | None = None) -> Markdown:
    """A table: names of the columns, rows of anything. Floats get two decimals.

    Columns of numbers are aligned right, except the first. A column that is empty in every row is
    left out. `caption`: a sentence above the table.
    """
    def cell(v):
        return f"{v:.2f}" if isinstance(v, float) else str(v)

    body = [list(row) for row in rows]
    columns = [[row[k] for row in body if k < len(row)] for k in range(len(header))]
    kept = [k for k, column in enumerate(columns) if not body or any(map(cell, column))]
    numbers = [any(isinstance(v, (int, float)) for v in columns[k]) for k in kept]
    rule = ["--:" if right and k else "---" for k, right in enumerate(numbers)]
    header, *body = ([line[k] for k in kept if k < len(line)] for line in [header, *body])
    above = f"*{caption}*\n\n" if caption else ""
    lines = ["| " + " | ".join(map(cell, line)) + " |" for line in [header, rule, *body]]
    return Markdown(above + "\n".join(lines))


def source(*things: Callable[..., Any]) -> Markdown:
    """The library's own lines for functions or classes."""
    texts = [inspect.getsource(thing).rstrip() for thing in things]
    return Markdown("```python\n" + "\n\n\n".join(texts) + "\n```")


def written_for(holds: bool, paragraph: str) -> Markdown | None:
    """A note that names a paragraph to rewrite, or None while it still `holds`.

    Guards a paragraph that was written for certain records. New records never stop a chapter.
    """
    if holds:
        return None
    return Markdown(f"> **Newer records.** The paragraph “{paragraph}” was written before the "
                    f"newest records, and {STALE}.")
