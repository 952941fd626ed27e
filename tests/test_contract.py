from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from sq_imputer.contract import Batch, CropSpec, Marks, Needs, Prediction, Source, Views
from sq_imputer.errors import BadInput


def batch(*rows: int, **more) -> Batch:
    index = torch.tensor(rows)
    return Batch(index=index, features=index[:, None] * torch.tensor([1.0, 10.0]), section=index * 0, **more)


# CropSpec and Needs ------------------------------------------------------------------------------


def test_a_crop_is_a_square_of_tissue_and_a_tensor():
    assert CropSpec() == CropSpec(112.0, 224)
    assert CropSpec(112, 224).mpp == 0.5
    assert len({CropSpec(50, 20), CropSpec(50.0, 20), CropSpec(50, 21)}) == 2


@pytest.mark.parametrize("extent", [0, -1.0, float("nan")])
def test_an_extent_is_a_positive_length(extent):
    with pytest.raises(BadInput, match=f"CropSpec.extent_um is {extent}; "):
        CropSpec(extent_um=extent)


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_size_is_a_number_of_pixels(size):
    with pytest.raises(BadInput, match=f"CropSpec.size_px is {size}; expected a whole number, 1 or more"):
        CropSpec(size_px=size)


def test_views_are_the_crop_and_its_contexts_in_as_many_pixels():
    needs = Needs(crop=CropSpec(100, 64), context_um=(200.0, 400.0))
    assert needs.views == (CropSpec(100, 64), CropSpec(200, 64), CropSpec(400, 64))
    assert Needs(context_um=(200.0,)).views == ()


@pytest.mark.parametrize("noun", [CropSpec(), Needs()], ids=["CropSpec", "Needs"])
def test_what_is_stated_once_cannot_be_changed(noun):
    with pytest.raises(FrozenInstanceError):
        setattr(noun, fields(noun)[0].name, 1)


# Batch -------------------------------------------------------------------------------------------


def test_rows_of_a_batch_come_in_the_order_asked_for():
    part = batch(4, 7, 9)[torch.tensor([2, 0])]
    assert part.index.tolist() == [9, 4] and len(part) == 2
    assert part.features.tolist() == [[9, 90], [4, 40]]
    assert part.crops is None and part.expression is None
    assert batch(4, 7, 9)[1:].index.tolist() == [7, 9]
    assert batch(4, 7, 9)[torch.tensor([True, False, True])].index.tolist() == [4, 9]


def test_batches_are_stacked_as_given():
    whole = Batch.cat([batch(3, 1), batch(2)])
    assert whole.index.tolist() == [3, 1, 2]
    assert whole.features.tolist() == [[3, 30], [1, 10], [2, 20]]
    assert whole.xy_um is None


def test_a_batch_moves_to_a_device_as_a_whole():
    moved = batch(1, 2, expression=torch.ones(2, 3)).to("meta")
    assert {part.device.type for part in (moved.index, moved.features, moved.section, moved.expression)} == {"meta"}
    assert moved.crops is None


# Prediction --------------------------------------------------------------------------------------


def test_parts_are_put_back_in_row_order():
    index = [torch.tensor([5, 1]), torch.tensor([3]), torch.tensor([0, 4])]
    parts = [Prediction(rows[:, None] * 1.0, std=rows[:, None] + 0.5, samples=rows[:, None, None]) for rows in index]
    whole = Prediction.gather(parts, index)
    assert whole.mean.ravel().tolist() == [0, 1, 3, 4, 5]
    assert whole.std.ravel().tolist() == [0.5, 1.5, 3.5, 4.5, 5.5]
    same = Prediction.gather(parts, [torch.cat(index)])
    assert torch.equal(same.mean, whole.mean) and torch.equal(same.samples, whole.samples)
    assert whole.samples.shape == (5, 1, 1) and whole.samples.ravel().tolist() == [0, 1, 3, 4, 5]
    assert whole.embedding is None and whole.ood is None


def test_rows_of_a_prediction_come_in_the_order_asked_for():
    part = Prediction(torch.arange(6.0).reshape(3, 2), ood=torch.tensor([0.1, 0.2, 0.3]))[torch.tensor([2, 0])]
    assert part.mean.tolist() == [[4, 5], [0, 1]]
    assert part.ood.tolist() == torch.tensor([0.3, 0.1]).tolist()
    assert part.std is None


def test_a_finished_prediction_is_float32_on_the_cpu_without_gradients():
    mean = torch.ones(2, 3, dtype=torch.float64, requires_grad=True) * 2
    done = Prediction(mean, ood=torch.ones(2, dtype=torch.bfloat16)).cpu()
    for part in (done.mean, done.ood):
        assert part.dtype == torch.float32 and not part.requires_grad and part.device.type == "cpu"
    assert done.std is None


def test_neighbors_stay_whole_numbers():
    """As float32, rows of a bank beyond 2**24 would be rounded to others."""
    far = torch.tensor([[2**24 + 1, -1]])
    parts = [Prediction(torch.zeros(1, 1), neighbors=far + i, weights=torch.ones(1, 2).double()).cpu() for i in (0, 1)]
    whole = Prediction.gather(parts, [torch.tensor([1]), torch.tensor([0])])
    assert whole.neighbors.dtype == torch.int64 and whole.weights.dtype == torch.float32
    assert whole.neighbors.tolist() == [[2**24 + 2, 0], [2**24 + 1, -1]]


# Source ------------------------------------------------------------------------------------------


def test_a_source_is_whatever_has_rows_targets_and_batches(toy_slides):
    class Genes:
        genes, unit, group, section, fingerprint = ("a",), "log", "yeast", "chrI", "0"
        measured, xy_um, expression, names = np.ones(3, bool), np.zeros((3, 2)), None, np.array(["x", "y", "z"])

        def __len__(self):
            return 3

        def batches(self, needs, batch_size=64, *, rows=None, generator=None, device="auto"):
            yield from ()

        def all_features(self, needs, *, device="auto"):
            return np.zeros((3, 0))

        def moments(self, needs, *, device="auto"):
            return None

        def marks(self, genes):
            return Marks((), self.xy_um, np.zeros((3, 0), np.int16), np.ones(0, bool))

    assert isinstance(toy_slides[0], Source) and isinstance(Genes(), Source)
    assert not isinstance(batch(1), Source)


def test_a_config_of_features_says_what_its_model_needs() -> None:
    needs = Needs(CropSpec(150.0, 64), ("texture",), (400.0,), per_section=True)
    assert Views(extent_um=150.0, size_px=64, encoders=("texture",), context_um=(400.0,)).needs == needs


def test_every_model_that_reads_features_has_the_same_views() -> None:
    from sq_imputer.models import mclstexp, mlp, ridge, stem

    for model in (mclstexp, mlp, ridge, stem):
        assert issubclass(model.Config, Views), model
        own = set(vars(model.Config).get("__annotations__", {}))
        assert not own & {field.name for field in fields(Views)}, model
