"""Causal language models of transformers, by the name or folder of weights that are on this machine.

They have what the small one has (`sq_imputer.nn.language`): a table of word embeddings, a way from embeddings to hidden
states, and a tokenizer. Nothing is downloaded, weights in safetensors alone are read, and no code of a repository is
run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sq_imputer.errors import BadInput, MissingKey

# B texts, T tokens, W width, V words


class Pretrained(nn.Module):
    """The network of a causal language model, which is never in training mode.

    Parameters
    ----------
    model
        Of transformers, without its head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def table(self) -> Tensor:
        """Word embeddings `(V, W)`."""
        return self.model.get_input_embeddings().weight

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Embeddings `(B, T, W)` to hidden states."""
        return self.model(inputs_embeds=x_BTW, use_cache=False).last_hidden_state

    def train(self, mode: bool = True) -> Pretrained:
        """Nothing: a frozen network drops nothing."""
        return super().train(False)


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model of transformers as a function of a text, without special tokens."""

    of: Any

    def __len__(self) -> int:
        return len(self.of)

    def __call__(self, text: str) -> list[int]:
        """The numbers of the pieces of a text, in its order."""
        return list(self.of(text, add_special_tokens=False)["input_ids"])

    @property
    def pieces(self) -> list[str]:
        """All pieces by their number."""
        return self.of.convert_ids_to_tokens(range(len(self.of)))


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model that is on this machine."""
    return Tokenizer(_there("AutoTokenizer", name))


def architecture(name: str) -> Pretrained:
    """The network of a model without its weights: initial ones, drawn by torch, or none on the `"meta"` device."""
    config = _there("AutoConfig", name)
    config.tie_word_embeddings = False
    return Pretrained(_library().AutoModel.from_config(config, dtype=torch.float32))


def weights(name: str) -> dict[str, Tensor]:
    """The weights of a model that is on this machine, by their names in :func:`architecture`.

    Raises
    ------
    BadInput
        If the model is not causal: what comes later would be seen.
    """
    model = Pretrained(_there("AutoModel", name, use_safetensors=True, dtype=torch.float32)).eval()
    _check_causal(model, name)
    return model.state_dict()


def _check_causal(model: Pretrained, name: str) -> None:
    """Raise `BadInput` if the first state of two tokens hangs on the second."""
    with torch.inference_mode():
        words = model.table[:3]
        one, other = (model(words[[0, k]][None])[0, 0] for k in (1, 2))
    if not torch.allclose(one, other, atol=1e-4 * float(one.abs().max()) + 1e-6):
        raise BadInput(f"'{name}' sees what comes later in a text; expected a causal language model, such as GPT-2.")


def _library():
    try:
        import transformers
    except ImportError as error:
        raise MissingKey("transformers is not installed; pip install 'sq-imputer[text]', or train a model.") from error
    return transformers


def _there(kind: str, name: str, **how):
    """What transformers makes of a name, from this machine alone."""
    try:
        return getattr(_library(), kind).from_pretrained(name, local_files_only=True, **how)
    except (OSError, ValueError) as error:
        raise MissingKey(
            f"no language model '{name}' with weights in safetensors on this machine: {str(error)[:200]}. Give the "
            "folder of one, or a folder written by LanguageModel.save()."
        ) from error
