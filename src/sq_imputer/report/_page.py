"""A page of headings, words, tables and pictures, in one file. Whatever text it is given is shown as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --line: #d0d7de; --soft: #f6f8fa; --pale: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --soft: #161b22;
  --pale: #9198a1; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { background: var(--soft); }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: 4px; }
.note { color: var(--pale); }
"""


class Page:
    """What a page holds, in order.

    Parameters
    ----------
    title
        Its title and first heading.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """A heading of a part."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def words(self, text: str, *, note: bool = False) -> None:
        """A paragraph; a note is less black."""
        self._parts.append(f"<p{' class=note' if note else ''}>{escape(text)}</p>")

    def listed(self, items: Iterable[str]) -> None:
        """Points under each other."""
        self._parts.append("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")

    def code(self, text: str) -> None:
        """Text as it is."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, table: DataFrame) -> None:
        """A table without its index; numbers with three digits, a dash where there is none."""
        shown = table.to_html(index=False, border=0, na_rep="–", float_format=lambda x: f"{x:.3f}", escape=True)
        self._parts.append(shown)

    def picture(self, figure: Figure, words: str) -> None:
        """A figure with the words that somebody hears who does not see it; the figure is closed."""
        import matplotlib.pyplot as plt

        held = io.BytesIO()
        figure.savefig(held, format="png", dpi=130, bbox_inches="tight", facecolor="white")
        plt.close(figure)
        data = base64.b64encode(held.getvalue()).decode()
        self._parts.append(f'<p><img alt="{escape(words)}" src="data:image/png;base64,{data}"></p>')

    def html(self) -> str:
        """The whole page."""
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        head += f"<title>{escape(self.title)}</title><style>{STYLE}</style>"
        body = "\n".join(self._parts)
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def listed_once(values) -> str:
    """Different values, one after the other."""
    return ", ".join(dict.fromkeys(map(str, values)))


def with_intervals(means: DataFrame, *by: str) -> DataFrame:
    """A row per subject, a column per metric: mean [low, high]."""
    shown = means.assign(value=[said(*row) for row in means[["mean", "low", "high"]].to_numpy()])
    order = {name: k for k, name in enumerate(dict.fromkeys(shown["metric"]))}
    wide = shown.pivot(index=list(by), columns="metric", values="value").reset_index().rename_axis(columns=None)
    return wide[[*by, *order]]


def said(mean: float, low: float, high: float) -> str:
    """A mean with its interval; a dash where there is none."""
    if mean != mean:
        return "–"
    return f"{mean:.3f}" + ("" if low != low else f" [{low:.3f}, {high:.3f}]")
