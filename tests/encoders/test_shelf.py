from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sq_imputer import encoders
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.encoders._shelf import Shelf, identity, same, told, weights_of
from sq_imputer.errors import BadInput

ONE = {"name": "uni", "sha256": "1" * 64, "revision": "main", "file": "one.safetensors", "timm": "1.0"}
OTHER = {**ONE, "sha256": "2" * 64, "file": "two.safetensors"}


@pytest.fixture
def built(monkeypatch):
    """Encoders "code" and "weighty", and what was built."""
    made = []

    def build(card, weights, revision):
        made.append(card.name)
        return SimpleNamespace(card=card, provenance={"name": card.name, "revision": 2})

    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)  # these look at no pixels
    encoders.register_encoder(replace(TEXTURE, name="code"), build)
    encoders.register_encoder(replace(TEXTURE, name="weighty", source="a/b"), build)
    return made


def test_the_identity_is_that_of_the_weights_else_of_the_revision():
    assert same(ONE, {**ONE, "timm": "2.0", "revision": "", "file": "copy.safetensors"}) and not same(ONE, OTHER)
    assert identity({"name": "texture", "revision": 3, "batch_size": 8}) == {"revision": 3}
    assert (
        same({}, ONE)
        and told(ONE) == "weights 111111111111 (one.safetensors)"
        and told({"revision": 3}) == "revision 3"
    )


def test_an_encoder_is_built_once(built):
    shelf = Shelf()
    assert not built and shelf.get("code") is shelf.get("code") and built == ["code"]


def test_code_decides_about_features_that_were_kept(built):
    shelf = Shelf()
    assert shelf.takes("code", {"revision": 2}, "a") and not shelf.takes("code", {"revision": 1}, "a")
    with pytest.raises(
        BadInput, match="the encoder as it is here has revision 2, but the fit .* revision 1. Fit the mo"
    ):
        Shelf(fitted={"code": {"revision": 1}}).get("code")


def test_features_of_two_weights_are_not_mixed_and_nothing_is_built(built):
    shelf = Shelf()
    assert shelf.takes("weighty", ONE, "section 'a'") and shelf.takes("weighty", dict(ONE), "section 'b'")
    with pytest.raises(
        BadInput, match=r"kept with section 'c' .* weights 2{12} \(two.* those of section 'a' by weights 1"
    ):
        shelf.takes("weighty", OTHER, "section 'c'")
    with pytest.raises(BadInput, match="those of the fit of the model by weights 1"):
        Shelf(fitted={"weighty": ONE}).takes("weighty", OTHER, "section 'c'")
    assert shelf.takes("weighty", {}, "section 'd'") and not built


def test_a_named_file_is_hashed_and_decides(tmp_path):
    for k in (1, 2):
        save_file({"a": torch.full((1,), float(k))}, tmp_path / f"{k}.safetensors")
    named = {"uni": tmp_path / "1.safetensors"}
    shelf = Shelf(named)
    own = shelf.made_by("uni")
    assert shelf.takes("uni", {"sha256": own["sha256"]}, "a") and not shelf.takes("uni", ONE, "a")
    with pytest.raises(
        BadInput, match="weights='.*1.safetensors' has weights .*, but the fit of the model has weights 1"
    ):
        Shelf(named, {"uni": ONE})
    with pytest.raises(BadInput, match="no file"):
        Shelf({"uni": tmp_path / "3.safetensors"})


def test_weights_are_of_the_encoders_in_use(tmp_path):
    assert weights_of(None, ("uni",)) == {}
    assert weights_of("w", ("texture", "uni")) == weights_of({"uni": "w"}, ("texture", "uni"))
    for weights, names, said in (
        ("w", ("texture",), "encoders 'texture' have none"),
        ("w", (), "reads pixels"),
        ("w", ("uni", "conch"), "one file for 2 encoders; pass a dict"),
        ({"gigapath": "w"}, ("uni",), "names 'gigapath'; expected the encoders in use, 'uni'"),
        (3, ("uni",), "weights is 3; expected"),
    ):
        with pytest.raises(BadInput, match=said):
            weights_of(weights, names)
