"""Plots: they take and return Axes and own no analysis."""

from __future__ import annotations

from sq_imputer.pl._alignment import alignment
from sq_imputer.pl._compare import compare
from sq_imputer.pl._domains import domains
from sq_imputer.pl._explain import explain
from sq_imputer.pl._genes_correlation import genes_correlation
from sq_imputer.pl._history import history
from sq_imputer.pl._interactive import interactive
from sq_imputer.pl._leaderboard import leaderboard
from sq_imputer.pl._quality import quality
from sq_imputer.pl._regulatory_map import regulatory_map
from sq_imputer.pl._skill import skill
from sq_imputer.pl._trust import trust
from sq_imputer.pl._uncertainty import uncertainty
from sq_imputer.pl._zero_shot import zero_shot

__all__ = [
    "alignment",
    "compare",
    "domains",
    "explain",
    "genes_correlation",
    "history",
    "interactive",
    "leaderboard",
    "quality",
    "regulatory_map",
    "skill",
    "trust",
    "uncertainty",
    "zero_shot",
]
