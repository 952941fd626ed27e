"""The table of what a model is held to, made from the checks of `sq_imputer.testing`."""

from __future__ import annotations

from pathlib import Path

from sq_imputer.testing import CHECKS


def table() -> str:
    """A row per check, in the order in which they are run, in MyST markdown."""
    rows = [f"| `{check.__name__}` | {check.__doc__.strip()} |" for check in CHECKS]
    return "\n".join(["| check | what it states |", "|---|---|", *rows]) + "\n"


def write(app) -> None:
    """Write the table where `extending.md` includes it from."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "checks.txt").write_text(table())


def setup(app) -> dict:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
