"""Encoders that a user brings, and the canary that tells one from another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.contract import CropSpec
from sq_imputer.encoders import _canary, from_callable, get_encoder
from sq_imputer.encoders._shelf import same, told
from sq_imputer.errors import BadInput, MissingKey

SPEC = CropSpec(50.0, 40)
CONFIG = {"extent_um": 50.0, "size_px": 40, "context_um": (), "encoders": ("mine",)}
PANEL = ["NUC1", "NUC2", "GLD1", "STR1"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_brought", set())


def colors(crops: np.ndarray) -> np.ndarray:
    assert isinstance(crops, np.ndarray) and crops.dtype == np.uint8
    return np.concatenate([crops.mean((2, 3)), crops.std((2, 3))], axis=1)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def scaled(crops):
    return crops.float() / 255


def truth(section, spec=SPEC) -> np.ndarray:
    return colors(sqi.pp.crops(section, spec)[:])


def test_a_function_of_arrays_is_an_encoder(section):
    sqi.pp.embed(section, colors, name="mine", spec=SPEC)
    table = section["table"]
    np.testing.assert_allclose(table.obsm["X_mine"], truth(section), rtol=1e-5)
    record = table.uns["sq_imputer"]["embeddings"]["X_mine"]
    assert record["encoder"] == "mine" and len(record["provenance"]["canary"]) == 6


def test_a_module_is_asked_in_eval_mode_for_transformed_crops(section):
    module = network()
    sqi.pp.embed(section, module, name="net", transform=scaled, spec=SPEC)
    crops = torch.from_numpy(sqi.pp.crops(section, SPEC)[:])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(section["table"].obsm["X_net"]), module.eval()(scaled(crops)))


def test_shapes_without_a_table_get_one_of_which_the_features_are_x(section):
    sqi.pp.grid(section, spacing_um=150.0)
    assert sqi.pp.embed(section, colors, name="mine", spec=SPEC, shapes_key="grid") is None
    table = section["mine_features"]
    expected = colors(sqi.pp.crops(section, SPEC, shapes_key="grid")[:])
    np.testing.assert_allclose(table.X, expected, rtol=1e-5)
    assert list(table.var_names) == [f"mine_{k}" for k in range(6)] and table.obsm["spatial"].shape == (len(table), 2)
    assert table.uns["spatialdata_attrs"]["region"] == "grid"
    with pytest.raises(BadInput, match="mine_features"):
        sqi.pp.embed(section, colors, name="mine", spec=SPEC, shapes_key="grid")
    sqi.pp.embed(section, colors, name="mine", spec=SPEC, shapes_key="grid", overwrite=True)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda crops: crops.mean(), r"shape \(\) for 2 crops; expected \(2, D\): pool them"),
        (lambda crops: 1 / 0, "could not be asked .ZeroDivisionError.*uint8 array of shape .2, 3, 224, 224"),
        ("resnet", "is a str; expected a torch module or a function"),
        (nn.Flatten, "is a type; expected a torch module or a function"),
    ],
)
def test_what_is_no_encoder_is_refused(function, said):
    with pytest.raises(BadInput, match=said):
        from_callable(function, "mine")


def test_names_are_those_of_an_encoder_and_of_functions_only(section):
    for name, said in (("a b", "expected letters"), ("", "expected letters"), ("uni", "exists already")):
        with pytest.raises(BadInput, match=said):
            from_callable(colors, name)
    with pytest.raises(BadInput, match="name= and transform= are of a module or a function; leave them out for 'text"):
        sqi.pp.embed(section, "texture", name="mine")
    from_callable(colors, "mine")
    with pytest.raises(BadInput, match="'mine' has no weights to pass"):
        get_encoder("mine", weights="w.safetensors")


def test_a_model_asks_for_the_encoder_of_its_fit_and_no_other(section, tmp_path):
    from_callable(network(), "mine", size_px=40, transform=scaled)
    other = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=12)["P1"]
    sqi.tl.fit(section, "ridge", genes=PANEL, config=CONFIG).save(tmp_path)
    from_callable(network(1), "mine", size_px=40, transform=scaled)
    with pytest.raises(BadInput, match="encoder 'mine': .* has weights .* but the fit of the model has weights"):
        sqi.tl.predict(other, tmp_path)
    from_callable(network(), "mine", size_px=40, transform=lambda crops: scaled(crops).flip(1))  # blue first
    with pytest.raises(BadInput, match="of the canary"):
        sqi.tl.predict(other, tmp_path)
    encoders._registered.clear()
    with pytest.raises(MissingKey, match="no encoder 'mine'.*from_callable"):
        sqi.tl.predict(other, tmp_path)
    from_callable(network(), "mine", size_px=40, transform=scaled)
    sqi.tl.predict(other, tmp_path)
    assert np.isfinite(other["imputed"].layers["ridge"]).all()


def test_a_run_is_not_resumed_with_a_function_that_gives_others(stored, monkeypatch):
    from sq_imputer.runs import run

    def killed(*_):
        raise KeyboardInterrupt

    from_callable(colors, "mine", size_px=40)
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            sqi.tl.predict(stored, "ridge", genes=PANEL, config=CONFIG, resume=True)
    from_callable(lambda crops: 2 * colors(crops), "mine", size_px=40)
    with pytest.raises(BadInput, match="canaries.mine differs"):
        sqi.tl.predict(stored, "ridge", genes=PANEL, config=CONFIG, resume=True)
    assert _canary.in_few([3.0, 4.0]) == [0.6, 0.8, pytest.approx(np.log(5))] and _canary.in_few(None) == []


class Tint(nn.Module):
    """Mean color of what is seen, times weights."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor([by, 1.0, 1.0]))

    def forward(self, crops):
        return crops.float().mean(dim=(2, 3)) * self.by


def test_modules_and_functions_go_into_a_config_and_a_saved_model_asks_for_them_by_name(section, tmp_path):
    config = {**CONFIG, "encoders": (Tint(1.0), "texture", colors)}
    model = sqi.tl.fit(section, "ridge", genes=PANEL, config=config)
    assert model.config.encoders == ("Tint", "texture", "colors")
    model.save(tmp_path)
    other = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=12)["P1"]
    with pytest.raises(BadInput, match="an encoder 'Tint' that gives other features.*from_callable"):
        sqi.tl.fit(other, "ridge", genes=PANEL, config={**CONFIG, "encoders": (Tint(2.0),)})
    encoders._registered.clear(), encoders._brought.clear()
    with pytest.raises(MissingKey, match="no encoder 'Tint'.*from_callable"):
        sqi.tl.predict(other, tmp_path)
    from_callable(Tint(2.0), "Tint", size_px=40), from_callable(colors, "colors", size_px=40)
    with pytest.raises(BadInput, match="encoder 'Tint': .* has weights .* but the fit of the model has weights"):
        sqi.tl.predict(other, tmp_path)
    from_callable(Tint(1.0), "Tint", size_px=40)
    sqi.tl.predict(other, tmp_path)
    sqi.tl.predict(other, model, layer_added="kept")
    np.testing.assert_allclose(other["imputed"].layers["ridge"], other["imputed"].layers["kept"], rtol=1e-5)


def test_a_config_made_by_hand_takes_them_as_well():
    ridge = sqi.get_model("ridge")
    assert ridge(ridge.Config(encoders=(Tint(1.0),), size_px=40)).needs.encoders == ("Tint",)
    assert ridge(ridge.Config(encoders=(Tint(1.0),), size_px=40)).config.encoders == ("Tint",)  # the same again
    with pytest.raises(BadInput, match="a <lambda> has no name by which a saved model could ask for it"):
        ridge(ridge.Config(encoders=(lambda crops: crops.mean((2, 3)),)))
    with pytest.raises(BadInput, match="encoder 'int' is a int; expected a torch module or a function"):
        ridge(ridge.Config(encoders=(5,)))


def test_the_canary_is_the_same_at_every_size_in_batches_and_in_half_precision():
    module = network().eval()
    assert _canary.picture(224).shape == (3, 224, 224) and _canary.picture(40).dtype == np.uint8
    np.testing.assert_array_equal(_canary.picture(112), _canary.picture(224)[:, ::2, ::2])
    crops = scaled(torch.from_numpy(np.stack([_canary.picture(224)] * 3)))
    with torch.no_grad():
        alone, many = module(crops[:1])[0].tolist(), module(crops)[2].tolist()
        half = module.bfloat16()(crops[:1].bfloat16())[0].tolist()
    assert _canary.alike(alone, many) and _canary.alike(alone, half)


@pytest.mark.parametrize(
    "change",
    [lambda x: x.flip(1), lambda x: (x - 0.5) / 0.2, lambda x: x.transpose(2, 3) * 1.05],
    ids=["blue first", "another normalization", "brighter"],
)
def test_the_canary_tells_other_preprocessing(change):
    from_callable(network(), "one", transform=scaled)
    from_callable(network(), "other", transform=lambda crops: change(scaled(crops)))
    one, other = (get_encoder(name).provenance for name in ("one", "other"))
    assert one["sha256"] == other["sha256"] and not same(one, other)
    assert "of the canary" in told(one, other) and told(one, other) != told(other, one)


def test_a_record_that_holds_no_numbers_fits_everything():
    for strange in (None, "abc", [], [[1.0]], ["a"], [float("nan")]):
        assert _canary.alike(strange, [1.0, 2.0]) and isinstance(_canary.told(strange), str)
    assert not _canary.alike([1.0], [1.0, 2.0])


def test_an_exported_program_which_refuses_eval_is_an_encoder_all_the_same():
    class Exported(torch.nn.Linear):
        def eval(self):
            raise NotImplementedError("Calling eval() is not supported yet.")

    program = Exported(3, 2)
    from_callable(program, "mine", size_px=40, transform=lambda crops: crops.float().mean(dim=(2, 3)))
    assert get_encoder("mine")(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 2)


def test_an_encoder_that_is_code_alone_sings_once(monkeypatch):
    known = get_encoder("texture").provenance["canary"]
    monkeypatch.setattr(_canary, "sung", None)
    again = get_encoder("texture").provenance["canary"]
    assert again == known and again is not known
