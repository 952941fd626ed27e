"""Protocols over fitted predictors."""

from sq_imputer.bench._leave_out import Case, Outcome, leave_one_out, outcomes, run, strips_of

__all__ = ["Case", "Outcome", "leave_one_out", "outcomes", "run", "strips_of"]
