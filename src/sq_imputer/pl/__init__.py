"""Plots: they take and return Axes and own no analysis."""

from __future__ import annotations

from sq_imputer.pl._compare import compare
from sq_imputer.pl._skill import skill

__all__ = ["compare", "skill"]
