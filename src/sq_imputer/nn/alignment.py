r"""Tokens of another kind, put in the words of a language model, and what is read out of its states.

Prototypes :math:`P = A W` are mixtures of the word embeddings W, by a learned A over the vocabulary. A token asks them
in several heads, so that what a head says of it is a mixture (weights of 0 or more that sum to 1) of rows of
:math:`P W_v`. This is the way of Time-LLM (Jin et al. 2024); the read-out is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sq_imputer.nn.drawn import Dropout

# B rows, T tokens that are aligned, P tokens of a prompt, N tokens in all, V words, W width of a word, S prototypes,
# H heads, E width of a head, F width of a token


class Alignment(nn.Module):
    """Bins ask prototypes, which are mixtures of word embeddings.

    Parameters
    ----------
    inputs, width
        Width of bins and of word embeddings.
    words, prototypes
        Their numbers.
    heads, head_width, dropout
        Of the attention.
    """

    def __init__(
        self, inputs: int, width: int, words: int, prototypes: int, heads: int, head_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.mix = nn.Linear(words, prototypes, bias=False)  # A, over the vocabulary
        nn.init.normal_(self.mix.weight, std=words**-0.5)  # prototypes are as long as words
        self.query, self.key = nn.Linear(inputs, inner), nn.Linear(width, inner, bias=False)
        self.value, self.out = nn.Linear(width, inner, bias=False), nn.Linear(inner, width)
        self.drop = Dropout(dropout)

    def prototypes(self, table_VW: Tensor) -> Tensor:
        """Mixtures `(S, W)` of word embeddings, in units of their root mean square."""
        return self.mix.weight @ (table_VW / _size(table_VW))

    def weights(self, bins_BTF: Tensor, table_VW: Tensor) -> tuple[Tensor, Tensor]:
        """How much every bin takes of every prototype, `(B, H, T, S)`, and what these are as values, `(H, S, E)`."""
        p_SW = self.prototypes(table_VW)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).movedim(-2, -3)
            for part in (self.query(bins_BTF), self.key(p_SW), self.value(p_SW))
        )
        return (q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5).softmax(dim=-1), v

    def forward(self, bins_BTF: Tensor, table_VW: Tensor) -> Tensor:
        """Bins in words, `(B, T, W)`."""
        weights_BHTS, value_HSE = self.weights(bins_BTF, table_VW)
        return _size(table_VW) * self.out((self.drop(weights_BHTS) @ value_HSE).transpose(1, 2).flatten(2))


def _size(table_VW: Tensor) -> Tensor:
    """How large the numbers of word embeddings are: language models differ in it, and what joins them should not."""
    return table_VW.detach().pow(2).mean().sqrt().clamp_min(1e-6)


class ReadOut(nn.Module):
    """Tokens, each by itself, then their mean by the attention of several heads.

    Parameters
    ----------
    width, hidden
        Width of the states, and of what is made of each.
    heads, head_width
        Of the means.
    """

    def __init__(self, width: int, hidden: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU())
        self.weigh, self.value = nn.Linear(hidden, heads), nn.Linear(hidden, heads * head_width)

    def forward(self, states_BNW: Tensor, inside_BN: Tensor) -> Tensor:
        """The pooled states `(B, H * E)` of tokens that are `inside`."""
        token = self.token(states_BNW)
        weights_BNH = self.weigh(token).masked_fill(~inside_BN[..., None], -torch.inf).softmax(dim=1)
        return torch.einsum("bnh,bnhe->bhe", weights_BNH, self.value(token).unflatten(-1, (self.heads, -1))).flatten(1)


def in_order(prompt_BPW: Tensor, sizes_B: Tensor, dna_BTW: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts of different length, each with its DNA right behind it: tokens `(B, P + T, W)`, and which there are.

    What is none comes last, where no causal model sees it.
    """
    prompt, dna = prompt_BPW.shape[1], dna_BTW.shape[1]
    at = torch.arange(prompt + dna, device=sizes_B.device)[None]
    sizes = sizes_B[:, None]
    source = torch.where(at < sizes, at, (prompt + at - sizes).clamp(max=prompt + dna - 1))
    tokens = torch.cat([prompt_BPW, dna_BTW], dim=1)
    return tokens.gather(1, source[..., None].expand(-1, -1, tokens.shape[2])), at < sizes + dna
