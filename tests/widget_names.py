"""What the tests of the widget share."""

GENES = ["NUC1", "GLD1", "STR1"]
SMALL = {"size_px": 32, "context_um": ()}
QUICK = {"config": SMALL, "n_folds": 2, "buffer_um": 0}
