"""Does every pretrained architecture of timm give the features that its card says?

Each is built on torch's `meta` device, where nothing is computed and no weights are needed, and shown two images: the
shape of what comes out is compared with the card. Without arguments all architectures of which timm has weights are
tried; names as arguments try those.

    python benchmarks/timm_widths.py
    python benchmarks/timm_widths.py mobilenetv3_small_050 resnet18
"""

from __future__ import annotations

import argparse
import warnings

import timm
import torch

from sq_imputer.encoders import encoder_card
from sq_imputer.encoders._timm import _Tower


def architectures() -> list[str]:
    """Names of the architectures that timm has weights of, each once."""
    return sorted({name.split(".")[0] for name in timm.list_models(pretrained=True)})


def given(name: str) -> int:
    """How many features an architecture gives per image."""
    card = encoder_card(f"timm:{name}")
    with torch.device("meta"), torch.no_grad():
        return _Tower(card, timm).eval()(torch.zeros(2, 3, card.size_px, card.size_px)).reshape(2, -1).shape[1]


def main() -> None:
    """Print those that do not fit, and how many of how many do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all if left out")
    parser.add_argument("--part", default="1/1", help="of all, such as 2/4: the second quarter")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    names = asked.names or architectures()
    names = names[len(names) * (part - 1) // parts : len(names) * part // parts]
    warnings.simplefilter("ignore")
    right = 0
    for number, name in enumerate(names):
        if number and not number % 100:
            print(f"{right} of {number} up to {name}", flush=True)
        try:
            said, found = encoder_card(f"timm:{name}").dim, given(name)
        except Exception as error:  # noqa: BLE001 whatever timm raises counts as one that does not build
            print(f"{name}: {type(error).__name__} {str(error).splitlines()[0][:120]}", flush=True)
            continue
        right += said == found
        if said != found:
            print(f"{name}: the card says {said}, {found} come out", flush=True)
    print(f"timm {timm.__version__}, torch {torch.__version__}: {right} of {len(names)} architectures")


if __name__ == "__main__":
    main()
