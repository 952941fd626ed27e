"""What torch was told elsewhere in the process: it changes no number of ours, and is as it was afterwards."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import torch

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.surroundings import check_deterministic, undisturbed

PLAN = sqi.Plan(device="cpu", progress=False, seed=2, epochs=2)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        yield
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


WORLDS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "default device": default_device,
    "deterministic": deterministic,
    "threads": three_threads,
}


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def said(model, config, slides, tmp_path) -> list[torch.Tensor]:
    """Weights and a prediction of a model that was fitted, saved and loaded; they serve in any world."""
    fitted = model(config).fit(list(slides[:2]), PLAN)
    fitted.save(tmp_path)
    prediction = sqi.load(tmp_path).predict(slides[2], rows=range(6), device="cpu")
    assert not prediction.mean.is_inference()
    return [*fitted.state_dict().values(), prediction.mean]


@pytest.mark.parametrize("world", WORLDS)
def test_numbers_are_the_same_in_every_world(world, toy_slides, tmp_path) -> None:
    model = sqi.get_model("nsl")
    slides = [slide.take(range(24)) for slide in toy_slides]
    expected = said(model, model.Config.small(), slides, tmp_path)
    with WORLDS[world]():
        found = said(model, model.Config.small(), slides, tmp_path)
        assert torch.is_autocast_enabled("cpu") == (world == "autocast")
        assert torch.is_inference_mode_enabled() == (world == "inference mode")
        assert torch.is_grad_enabled() == (world not in ("no_grad", "inference mode"))
        assert torch.get_default_device().type == ("meta" if world == "default device" else "cpu")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the loss of mclstexp is")
@pytest.mark.parametrize("name", ["ridge", "mlp", "mclstexp", "stem"])
def test_numbers_of_every_model_are_the_same_in_all_worlds_at_once(name, toy_slides, tmp_path) -> None:
    model = sqi.get_model(name)
    smaller = {"width": 16, "depth": 1, "steps": 8, "n_samples": 2} if name == "stem" else {}
    config = replace(model.Config.small(), **smaller)
    slides = [slide.take(range(24)) for slide in toy_slides]
    expected = said(model, config, slides, tmp_path)
    with ExitStack() as worlds:
        for enter in WORLDS.values():
            worlds.enter_context(enter())
        found = said(model, config, slides, tmp_path)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=3e-5)


def test_features_are_the_same_under_autocast() -> None:
    crops = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = sqi.encoders.get_encoder("texture")
    expected = encoder(crops)
    for enter in WORLDS.values():
        with enter():
            torch.testing.assert_close(encoder(crops), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_another_default_type_is_refused_before_anything_is_read(verb, section, monkeypatch) -> None:
    monkeypatch.setattr("sq_imputer.section.slide.Slide.from_sdata", lambda *_, **__: pytest.fail("it was read"))
    with float64(), pytest.raises(BadInput, match=r"default type is torch.float64.*torch.set_default_dtype\(torch.flo"):
        getattr(sqi.tl, verb)(section, model="nsl")


def test_a_loaded_model_refuses_another_default_type(toy_slides, tmp_path) -> None:
    nsl = sqi.get_model("nsl")
    fitted = nsl(nsl.Config.small()).fit(toy_slides[0], PLAN)
    fitted.save(tmp_path)
    for ask in (lambda: sqi.load(tmp_path), lambda: fitted.predict(toy_slides[1]), lambda: fitted.fit(toy_slides[0])):
        with float64(), pytest.raises(BadInput, match="default type"):
            ask()


def test_deterministic_algorithms_that_would_stop_in_the_middle_are_refused(monkeypatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    check_deterministic("cuda:0")
    with deterministic():
        check_deterministic("cpu")
        with pytest.raises(BadInput, match="'cuda:0' has if the environment says so.*CUBLAS_WORKSPACE_CONFIG=:4096:8"):
            check_deterministic("cuda:0")
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        check_deterministic("cuda:0")


def test_undisturbed_is_for_the_moment_and_the_thread() -> None:
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        with undisturbed():
            assert not torch.is_autocast_enabled("cpu") and not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled() and torch.ones(2, requires_grad=True).sum().requires_grad
        assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
