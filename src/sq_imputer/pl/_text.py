"""Names in pictures."""

from __future__ import annotations

from sq_imputer.errors import printable


def plain(name: object) -> str:
    """A name as it is: matplotlib takes what stands between two dollars for a formula, and fails if it is none."""
    return printable(name).replace("$", r"\$")
