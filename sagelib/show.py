"""Pictures, maps, curves and tables for the chapters. The only module that knows matplotlib."""
import inspect

import matplotlib.pyplot as plt
import torch

STALE = "no longer agrees with the tables above"  # what ci/book looks for in the chapters it ran
MAPS = {"saliency": dict(cmap="magma", vmin=0), "mask": dict(cmap="coolwarm_r", vmin=0, vmax=1),
        "value": dict(cmap="viridis")}
COLOURS = {
    "vanilla": "#5b6470", "mixup": "#0072b2", "cutmix": "#d55e00", "manifold_mixup": "#332288",
    "saliencymix": "#c98a00", "puzzlemix": "#cc79a7", "comixup": "#56b4e9",
    "guidedmixup": "#882255", "sage": "#009e73", "sage_merged": "#117733"
}
plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 80, "font.size": 10, "axes.spines.top": False,
                     "axes.spines.right": False, "image.interpolation": "nearest"})


def grid(rows, titles=None, labels=None, kind="saliency", size=1.5):
    """Rows of pictures and maps. Three channels make a picture (floats in [0, 1] or bytes), one a
    map in colour.

    `titles` stand over the columns: a list, or one list for each row. `labels` stand left of the
    rows. `kind` of the maps: "saliency", "mask" (blue: the first image, red: the second) or
    "value".
    """
    columns = max(map(len, rows))
    each = titles and isinstance(titles[0], (list, tuple))
    height = size * len(rows) * (1.18 if each else 1) + (0.25 if titles else 0)
    _, axes = plt.subplots(len(rows), columns, squeeze=False, layout="constrained",
                           figsize=(size * columns, height))
    for i, row in enumerate(rows):
        for j, axis in enumerate(axes[i]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if j < len(row) and row[j] is not None:
                picture(axis, row[j], kind)
                if titles and (each or i == 0):
                    axis.set_title(titles[i][j] if each else titles[j], fontsize=10)
        if labels:
            axes[i, 0].set_ylabel(labels[i], fontsize=10)
    plt.show()


def picture(axis, z, kind="saliency"):
    """Draw one image (3, H, W) or one map (1, H, W) or (H, W) on an axis; returns what matplotlib
    drew."""
    z = torch.as_tensor(z).detach().cpu().squeeze()
    if z.ndim == 3:
        return axis.imshow(z.permute(1, 2, 0).numpy())
    return axis.imshow(z.float().numpy(), **MAPS[kind])


def bars(values, ylabel, title=None, errors=None, limit=None, size=(6, 2.8)):
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


def curves(runs, key="test_accuracy", ylabel="test accuracy, %", size=(6.4, 3.2), draw=True):
    """Learning curves: name -> curve (a list of dicts), or a list of curves (one a seed) drawn in
    one colour.

    `draw=False` returns the figure instead of showing it.
    """
    fig, axis = plt.subplots(figsize=size, layout="constrained")
    for name, found in runs.items():
        found = found if found and isinstance(found[0], list) else [found]
        for k, curve in enumerate(found):
            axis.plot([e["epoch"] + 1 for e in curve], [e[key] for e in curve], marker="o",
                      markersize=3, color=COLOURS.get(name), label=name if k == 0 else None)
    axis.set(xlabel="epoch", ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    if not draw:
        return fig
    plt.show()


def scatter(points, xlabel, ylabel, title=None, size=(6.2, 3.5)):
    """A mark for each method: name -> (x, y). Where vanilla is among them, dashed lines go through
    its mark."""
    _, axis = plt.subplots(figsize=size, layout="constrained")
    for name, (x, y) in sorted(points.items(), key=lambda item: [*COLOURS, item[0]].index(item[0])):
        marker = dict(zip(COLOURS, "osD^v<>*PX", strict=True)).get(name, "h")
        axis.scatter(x, y, color=COLOURS.get(name, "#888888"), marker=marker, s=48, label=name,
                     zorder=2)
    if "vanilla" in points:
        axis.axvline(points["vanilla"][0], color="#888888", ls="--", lw=0.8)
        axis.axhline(points["vanilla"][1], color="#888888", ls="--", lw=0.8)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.margins(0.12)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()


def reliability(bins, title=None, size=(4.2, 3.4)):
    """Reliability diagram of `bins`: lists count, accuracy and confidence (fractions), as
    calibration.scores gives."""
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

    def __init__(self, text):
        self.text = text

    def _repr_markdown_(self):
        return self.text

    def __repr__(self):
        return self.text


def table(header, rows, caption=None):
    """A table: names of the columns, and rows of anything; floats get two decimals, columns of
    numbers stand right.

    A column that is empty in every row is left out. `caption`: a sentence above it.
    """
    def cell(v):
        return f"{v:.2f}" if isinstance(v, float) else str(v)

    rows = [list(row) for row in rows]
    kept = [
        k for k in range(len(header))
        if not rows or any(cell(row[k]) for row in rows if k < len(row))
    ]
    header, *rows = ([line[k] for k in kept if k < len(line)] for line in [header, *rows])
    numbers = [
        any(isinstance(row[k], (int, float))
            for row in rows
            if k < len(row))
        for k in range(len(header))
    ]
    lines = [header, ["--:" if right and k else "---" for k, right in enumerate(numbers)], *rows]
    above = f"*{caption}*\n\n" if caption else ""
    return Markdown(above + "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines))


def source(*things):
    """The library's own lines for functions or classes."""
    return Markdown("```python\n" +
                    "\n\n\n".join(inspect.getsource(thing).rstrip() for thing in things) + "\n```")


def written_for(holds, paragraph):
    """Guard of a paragraph that was written for certain records: shows nothing where it still
    `holds`, else a note that names the paragraph to rewrite. New records never stop a chapter."""
    note = (f"> **Newer records.** The paragraph “{paragraph}” was written before the newest "
            f"records, and {STALE}.")
    return None if holds else Markdown(note)
