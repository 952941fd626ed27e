"""The tables of what models and encoders are held to, made from the checks of `sq_imputer.testing`."""

from __future__ import annotations

from pathlib import Path

from sq_imputer.testing import CHECKS, ENCODER_CHECKS


def table(checks=CHECKS) -> str:
    """A row per check, in the order in which they are run, in MyST markdown."""
    rows = [f"| `{check.__name__}` | {check.__doc__.strip()} |" for check in checks]
    return "\n".join(["| check | what it states |", "|---|---|", *rows]) + "\n"


def write(app) -> None:
    """Write the tables where `extending.md` includes them from."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "checks.txt").write_text(table())
    (folder / "encoder_checks.txt").write_text(table(ENCODER_CHECKS))


def setup(app) -> dict:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
