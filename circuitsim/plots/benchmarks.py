"""How long engines take."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from circuitsim.plots.style import COLOURS, TEXT_WIDTH, Picture, paper


def timings(found: Mapping[str, Mapping[tuple[str, int], float]]) -> Figure:
    """Plot the time of a step of one circuit, a panel for each thing that was varied.

    Parameters
    ----------
    found : mapping
        For each engine, microseconds by what was varied and its value.

    Returns
    -------
    matplotlib.figure.Figure
    """
    axes_names = list(dict.fromkeys(axis for times in found.values() for axis, _ in times))
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 3.0))
        panels = figure.subplots(1, len(axes_names), sharey=True, squeeze=False)[0]
        for panel, axis in zip(panels, axes_names, strict=True):
            for number, (name, times) in enumerate(found.items()):
                points = sorted((value, t) for (a, value), t in times.items() if a == axis)
                panel.plot(
                    *zip(*points, strict=True),
                    marker="os^Dv<>"[number % 7],
                    markersize=3.5,
                    # Colours begin anew with another dash.
                    linestyle=("-", (0, (4, 2)), ":")[number // len(COLOURS) % 3],
                    linewidth=1.1,
                    color=COLOURS[number % len(COLOURS)],
                    label=name,
                )
            panel.set(xscale="log", yscale="log", xlabel=axis)
            values = sorted({value for times in found.values() for a, value in times if a == axis})
            panel.set_xticks(values, labels=list(map(str, values)))
            panel.set_xticks([], minor=True)
            panel.margins(x=0.06)
        panels[0].set_ylabel("microseconds a step and circuit")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
