"""The contract that models and encoders must pass; plug-ins call the two functions in their own tests."""

from __future__ import annotations

from collections.abc import Callable

from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import get_model
from sq_imputer.section.slide import Slide
from sq_imputer.target import GENES
from sq_imputer.testing import _fitting, _learning, _prediction, _saving, _statements, _targets
from sq_imputer.testing._encoder import ENCODER_CHECKS, check_encoder
from sq_imputer.testing._subject import Subject, left_alone, run_checks, toy_slides
from sq_imputer.testing._targets import relabeled
from sq_imputer.testing._windows import toy_windows

__all__ = ["CHECKS", "ENCODER_CHECKS", "Subject", "check_encoder", "check_predictor", "toy_slides", "toy_windows"]


def check_predictor(model: str | type[Predictor], config=None, slides: tuple[Slide, ...] | None = None) -> list[str]:
    """Check that a model keeps the contract.

    Parameters
    ----------
    model
        Its name or class.
    config
        What to check it with; `Config.small()` if left out.
    slides
        Training sections and, last, the one to predict, with expression of genes; toy tissue if left out. For a model
        that takes no genes, another target is made of them; one whose rows are genes is checked on toy DNA.

    Returns
    -------
    Names of the checks that passed: all of :data:`CHECKS`. What does not apply to a model passes.

    Raises
    ------
    AssertionError
        With the name of the first check that failed, and why.
    """
    model = get_model(model) if isinstance(model, str) else model
    rows = getattr(model.card, "rows", "spots")
    slides = slides if slides and rows == "spots" else toy_windows() if rows == "genes" else toy_slides()
    takes = getattr(model.card, "targets", (GENES,))
    if takes and GENES not in takes:
        slides = tuple(relabeled(slides, takes[0]))
    return run_checks(CHECKS, Subject(model, config, slides), f"{model.__module__}.{model.__qualname__}")


def check_process_unchanged(subject: Subject) -> None:
    """Whatever was done left random states, threads, gradient mode, default dtype and Ctrl-C as they were."""
    left_alone(subject.process, "model")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    _statements.check_card,
    _statements.check_needs,
    _statements.check_unfitted,
    _fitting.check_fits,
    _statements.check_config,
    _prediction.check_shapes,
    _prediction.check_uncertainty,
    _prediction.check_calibrated,
    _prediction.check_samples,
    _saving.check_retrieval,
    _statements.check_genes,
    _statements.check_provenance,
    _fitting.check_state,
    _prediction.check_deterministic,
    _prediction.check_no_memory,
    _prediction.check_model_unchanged,
    _prediction.check_training_mode,
    _prediction.check_batch_unchanged,
    _prediction.check_target_unseen,
    _prediction.check_target_labels,
    _prediction.check_batch_size,
    _prediction.check_one_row,
    _prediction.check_row_order,
    _prediction.check_repeated_rows,
    _prediction.check_mask,
    _prediction.check_no_rows,
    _prediction.check_row_isolated,
    _prediction.check_blank_image,
    _prediction.check_section_of_one_row,
    _prediction.check_applicability,
    _prediction.check_other_genes,
    _fitting.check_sources_unchanged,
    _fitting.check_seed,
    _fitting.check_another_seed,
    _fitting.check_listing,
    _fitting.check_refit,
    _fitting.check_models_apart,
    _fitting.check_unmeasured_rows,
    _fitting.check_training_labels,
    _fitting.check_float64,
    _fitting.check_one_gene,
    _fitting.check_flat_genes,
    _fitting.check_two_rows,
    _fitting.check_failed_fit,
    _fitting.check_interrupted_fit,
    _saving.check_save_load,
    _saving.check_folder,
    _saving.check_copy,
    _saving.check_training_rows,
    _targets.check_kinds,
    _targets.check_target_kept,
    _targets.check_other_kinds,
    _learning.check_loss,
    _learning.check_learns,
    _learning.check_order,
    check_process_unchanged,
)
"""What a model is held to, in this order."""
