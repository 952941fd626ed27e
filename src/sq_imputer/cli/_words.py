"""Messages of the verbs in the words of the command line: `overwrite=True` is `--overwrite` there."""

from __future__ import annotations

import re
from collections.abc import Sequence

import typer

CALL = r"\b(?P<call>(?:sq_imputer\.)?(?:tl|pp|pl|encoders|predictor)\.[a-z_]+(?:\([^()]*\))?)"
ARGUMENT = r"\b(?P<name>[a-z][a-z_]*)=(?P<value>True|False|'[^']*'|[0-9.]*[0-9])?(?![=\w])"
BARE = r"(?<![^\s(])(?P<bare>[a-z]+(?:_[a-z]+)+)\b(?![='\[(]|\.\w)"  # an underscore makes it no word of English
VERBS = {"tl.fit": "fit", "tl.predict": "predict", "tl.score": "score", "predictor.save()": "fit"}


def options_of(app: typer.Typer, arguments: Sequence[str]) -> set[str]:
    """Names of the options of the command that some arguments call, without dashes."""
    command = typer.main.get_command(app)
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command = inner
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    return {flag.removeprefix("--") for flag in flags if flag.startswith("--")}


def spoken(message: str, options: set[str]) -> str:
    """A message whose arguments are options where the command has them, and marked as Python's where it has not.

    Verbs are the commands of their names; a call of another function is marked as well.
    """

    def option(found: re.Match) -> str:
        if found["call"]:
            command = VERBS.get(found["call"])
            return f"`sq-imputer {command}`" if command else f"{found[0]} (in Python)"
        name, value = (found["name"] or found["bare"]).replace("_", "-"), found["value"] or ""
        if value == "False" and f"no-{name}" in options:
            return f"--no-{name}"
        if name in options and value != "False":
            return f"--{name}" if value in ("", "True") else f"--{name} {value}"
        return found[0] if found["bare"] else f"{found[0]} (in Python)"

    return re.sub(f"{CALL}|{ARGUMENT}|{BARE}", option, message)
