"""`sq-imputer models`: models and encoders, with their terms."""

from __future__ import annotations

from dataclasses import replace

import typer

from sq_imputer.cli._printed import print_table


def models() -> None:
    """List the models, with what they are and where not to trust them, and the encoders with their licenses."""
    import pandas as pd

    from sq_imputer import external, get_model, list_models

    cards = [get_model(name).card for name in list_models()] + [
        replace(card, name=f"zoo:{card.name}", limits=f"{card.limits} License: {card.license}.")
        for card in external.cards()
    ]
    print_table(
        pd.DataFrame(
            {"model": [c.name for c in cards], "what": [c.summary for c in cards], "limits": [c.limits for c in cards]}
        ),
        "models",
    )
    print_table(pd.DataFrame([_terms(card) for card in _encoder_cards()]), "encoders")


def _encoder_cards() -> list:
    """Cards of the encoders that are named here, and of lazyslide-models where that is installed."""
    from importlib.util import find_spec

    from sq_imputer.encoders import encoder_card, list_encoders

    named = list_encoders()
    if find_spec("lazyslide_models") is None:
        typer.echo('more encoders, as zoo:NAME: pip install "sq-imputer[zoo]"')
    else:
        from sq_imputer.encoders._zoo import known

        named += known()
    return [encoder_card(name) for name in named]


def _terms(card) -> dict[str, str]:
    """What decides whether one may use an encoder."""
    use = {"commercial use": card.commercial, "log-in": card.gated}
    return {"encoder": card.name, "license": card.license, **{k: "yes" if v else "no" for k, v in use.items()}}
