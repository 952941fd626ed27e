"""Tables and numbers on a terminal."""

from __future__ import annotations

from sq_imputer.errors import printable


def print_table(table, title: str) -> None:
    """A table with its title; brackets in names are no markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(value) -> Text:  # rich takes brackets in a string for styles and links
        return Text(number(value, 3) if isinstance(value, float) else printable(value))

    shown = Table(title=plain(title))
    for column in table.columns:
        first = not shown.columns
        shown.add_column(plain(column), justify="left" if first else "right", overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*map(plain, row))
    Console().print(shown)


def number(value: float, digits: int = 2) -> str:
    """A number with so many digits; a dash where there is none."""
    return "–" if value != value else f"{value:.{digits}f}"


def interval(mean: float, low: float, high: float) -> str:
    """A mean with its interval; a dash for one that there is not."""
    return number(mean) + ("" if low != low or mean != mean else f" [{low:.2f}, {high:.2f}]")
