from __future__ import annotations

from fixtures_of_verbs import (  # noqa: F401
    _toys,
    change,
    draws,
    genes,
    joined,
    partly,
    patients,
    recalls,
    section,
    spy,
    wide,
)
