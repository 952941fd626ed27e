"""Protocols over fitted predictors."""

from sq_imputer.bench._leave_out import leave_one_out, outcomes, run, strips_of
from sq_imputer.bench._outcome import Case, Outcome

__all__ = ["Case", "Outcome", "leave_one_out", "outcomes", "run", "strips_of"]
