"""The keys that verbs hand on are the arguments of `Slide.from_sdata`; verbs refuse others in our words."""

from __future__ import annotations

from inspect import signature

import pytest

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.progress import _quiet
from sq_imputer.section.keys import DEFAULTS, SlideKeys, verb
from sq_imputer.section.slide import Slide

VERBS = [getattr(room, name) for room in (sqi.pp, sqi.tl, sqi.pl) for name in room.__all__]


def test_keys_are_the_arguments_of_the_reader() -> None:
    taken = signature(Slide.from_sdata).parameters
    assert set(SlideKeys.__annotations__) == set(taken) - {"sdata", "section", "target"}
    assert {name: taken[name].default for name in DEFAULTS} == DEFAULTS
    others = set(SlideKeys.__annotations__) - set(DEFAULTS)
    assert {taken[name].default for name in others} == {None}


@pytest.mark.parametrize("function", VERBS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_every_verb_names_its_keywords_and_refuses_others(function) -> None:
    known = signature(function).parameters
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    wrong = f"{list(known)[-1]}s_"
    with pytest.raises(
        BadInput, match=rf"{function.__name__} has no argument '{wrong}'. Did you mean {list(known)[-1]}="
    ):
        function(None, **{wrong: 1})


def test_what_is_nothing_like_a_keyword_gets_the_list() -> None:
    with pytest.raises(BadInput, match="tl.fit has no argument 'xyzzy'. It takes 'sdata', 'model', .*'shapes_key'"):
        sqi.tl.fit(None, "ridge", xyzzy=1)


def test_the_keys_stand_in_signature_and_docstring() -> None:
    @verb
    def look(sdata, *, device="auto", layer=3, **keys):
        """Look.

        Parameters
        ----------
        **keys
            Where.
        """
        return _quiet.get(), keys

    look.__wrapped__.__module__ = "sq_imputer.tl"
    names = list(signature(look).parameters)
    assert names == ["sdata", "device", "layer", "progress", *(k for k in SlideKeys.__annotations__ if k != "layer")]
    assert "image_key, shapes_key, table_key" in look.__doc__ and "**keys" not in look.__doc__
    assert look(0, image_key="he") == (False, {"image_key": "he"})
    assert look(0, progress=False) == (True, {}) and not _quiet.get()
    with pytest.raises(BadInput, match="progress is 'no'; expected True or False"):
        look(0, progress="no")


def test_seed_device_and_progress_fill_the_plan(section, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(sqi.Predictor, "fit", lambda self, slides, plan: seen.append(plan) or self)
    with pytest.raises(BadInput, match="seed is 3, but Plan.seed is 1"):
        sqi.tl.fit(section, "ridge", plan=sqi.Plan(seed=1), seed=3)
    with pytest.raises(BadInput, match="Plan.seed is -1"):
        sqi.tl.fit(section, "ridge", seed=-1)
    assert not seen
    sqi.tl.fit(section, "ridge", genes=5, seed=3, device="cpu", progress=False)
    sqi.tl.fit(section, "ridge", genes=5, seed=3, plan=sqi.Plan(seed=3, clip=2.0))
    assert seen == [sqi.Plan(seed=3, device="cpu", progress=False), sqi.Plan(seed=3, clip=2.0)]
