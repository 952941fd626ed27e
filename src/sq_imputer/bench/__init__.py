"""Protocols over fitted predictors."""

from sq_imputer.bench._leave_out import Case, leave_one_out, run, strips_of

__all__ = ["Case", "leave_one_out", "run", "strips_of"]
