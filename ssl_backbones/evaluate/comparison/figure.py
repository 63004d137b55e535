"""The table as a picture: a dot and an interval for each number, a panel for each column."""

from __future__ import annotations

from pathlib import Path

from ssl_backbones.evaluate.comparison.comparison import Comparison
from ssl_backbones.evaluate.comparison.table import Table
from ssl_backbones.visualizers.figures import new_figure

DOT = "#1b6ca8"
LINE = "#c8d3dc"


def draw(comparison: Comparison, table: Table, path: Path) -> None:
    """Leave the picture in a file whose ending says its format (png, pdf, svg)."""
    rows, columns = len(comparison.rows), len(comparison.columns)
    figure = new_figure(width=2.4 + 3.2 * columns, height=0.9 + 0.3 * rows)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, comparison.columns, strict=True):
        scale = 100 if column.percent else 1
        for height, row in enumerate(comparison.rows):
            cell = table.get((row.label, column.label))
            panel.axhline(height, color=LINE, linewidth=0.6, zorder=0)
            if cell is None:
                continue
            if cell.low is not None and cell.high is not None:
                panel.plot([scale * cell.low, scale * cell.high], [height, height], color=DOT, linewidth=2, alpha=0.5)
            panel.plot(scale * cell.mean, height, "o", color=DOT, markersize=5)
        panel.set_title(column.label, fontsize=10)
        panel.set_xlabel("%" if column.percent else column.number, fontsize=9)
        panel.set_yticks(range(rows), [row.label for row in comparison.rows])
        panel.tick_params(labelsize=9, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_ylim(rows - 0.4, -0.6)
    figure.savefig(path, dpi=160)
