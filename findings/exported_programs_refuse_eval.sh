#!/usr/bin/env bash
# The module of a program exported by torch.export cannot be told to be in eval mode.
#
# Expected: `module.eval()` of any torch.nn.Module, which inference code calls as a matter of course, returns the module;
#   what was exported in eval mode at least stays in it.
# Seen (torch 2.14.1): `torch.export.load(path).module().eval()` raises NotImplementedError, "Calling eval() is not supported
#   yet." Published pathology encoders come in this form (CTransPath and Path2Space in lazyslide-models 0.1).
# This project: sq_imputer.encoders takes such a module as it was exported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.linear(x.flatten(1))


torch.export.save(torch.export.export(Small().eval(), (torch.zeros(2, 3, 2, 2),)), "small.pt2")
module = torch.export.load("small.pt2").module()
assert isinstance(module, torch.nn.Module) and module(torch.zeros(2, 3, 2, 2)).shape == (2, 3)
try:
    module.eval()
except NotImplementedError as error:
    assert "eval() is not supported" in str(error), error
    print(f"torch {torch.__version__}: {error}")
else:
    raise SystemExit("an exported module takes eval() now")
PYTHON
