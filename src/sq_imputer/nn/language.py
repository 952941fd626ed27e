r"""A small causal language model, trained on the texts that a user has, and kept frozen from then on.

Texts are cut into words: the most frequent ones are pieces of their own, all others are spelled by the longest pieces
that begin them, down to letters. A transformer of two to four layers (rotary positions, Su et al. 2021) reads them from
left to right, :math:`h_1 \dots h_T`, and learns to tell each word from those before it,

.. math:: L = -\frac1T \sum_t \log \mathrm{softmax}(E h_t)_{w_{t+1}}

with :math:`E` the table of word embeddings, which is that of its input. What it knows of language is the language of
names of genes and gene sets: it is a language model in kind, not in size.

Everything here is ours; the parts are standard. Other language models have the same three things: a table of word
embeddings, a way from embeddings to hidden states, and a tokenizer (`sq_imputer.nn.pretrained`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sq_imputer.device import one_thread
from sq_imputer.errors import BadInput, MissingKey, check_number
from sq_imputer.nn.transformer import Block
from sq_imputer.progress import track
from sq_imputer.untrusted import misfit, read_json

# B texts, T tokens, W width, V words

SETTINGS, WEIGHTS, FORMAT = "language.json", "language.safetensors", 1
WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
END, ODD = "<end>", "<odd>"  # what parts texts, and a letter that no training text had
MOST_WORDS, MOST_WIDTH, MOST_DEPTH = 2**17, 2**13, 2**6  # of a folder of others


@dataclass(frozen=True)
class Words:
    """The pieces that texts are cut into, the most frequent first after `<end>` and `<odd>`."""

    pieces: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], most: int = 2000) -> Words:
        """The most frequent words of some texts, and every letter in them.

        Parameters
        ----------
        most
            Number of words, beside the letters.
        """
        check_number("most", most, 1, whole=True)
        count = Counter(word for text in texts for word in WORD.findall(text.lower()))
        if not count:
            raise BadInput("the texts hold no word; expected some, such as names of genes.")
        letters = sorted({letter for word in count for letter in word})
        often = sorted((word for word in count if len(word) > 1), key=lambda word: (-count[word], word))
        return cls((END, ODD, *letters, *often[:most]))

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.pieces[2:]), default=1)

    def __call__(self, text: str) -> list[int]:
        """The numbers of the pieces of a text, in its order."""
        return [number for word in WORD.findall(text.lower()) for number in self._spelled(word)]

    def _spelled(self, word: str) -> list[int]:
        """A word by the longest pieces that begin what is left of it."""
        numbers = []
        while word:
            sizes = range(min(len(word), self._longest), 0, -1)
            size = next((size for size in sizes if word[:size] in self._number), 0)
            numbers.append(self._number[word[:size]] if size else 1)
            word = word[max(size, 1) :]
        return numbers


class Language(nn.Module):
    """The network: word embeddings, causal blocks with rotary positions, and a norm.

    Parameters
    ----------
    words
        Number of word embeddings.
    width, depth, heads
        Of the transformer; a head is an even number of channels wide.
    """

    def __init__(self, words: int, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        if width % (2 * heads):
            raise BadInput(f"width is {width} for {heads} heads; expected a multiple of twice their number.")
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def table(self) -> Tensor:
        """Word embeddings `(V, W)`."""
        return self.embedding.weight

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Embeddings `(B, T, W)` to hidden states, each of what came before it and itself."""
        turn = _turns(x_BTW.shape[1], self.table.shape[1] // self.blocks[0].attention.heads, x_BTW)

        def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(_turned(q, turn), _turned(k, turn), v, is_causal=True)

        for block in self.blocks:
            x_BTW = block(x_BTW, mix=causal)
        return self.norm(x_BTW)


def drawn(words: int, width: int, depth: int, heads: int, seed: int) -> Language:
    """A network with initial weights of a generator of its own: torch's global one is left as it is."""
    with torch.device("meta"):
        net = Language(words, width, depth, heads)
    net, generator = net.to_empty(device="cpu"), torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        if weight.ndim == 1:
            nn.init.constant_(weight, float("norm" in name and name.endswith("weight")))
        else:
            std = 0.02 if "embedding" in name else weight.shape[1] ** -0.5
            nn.init.normal_(weight, std=std, generator=generator)
    return net


def _turns(tokens: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(T, D / 2)` by which the pairs of channels of a head are turned at every place."""
    pace = 10_000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angle = torch.arange(tokens, device=like.device, dtype=torch.float32)[:, None] * pace
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _turned(x_BHTD: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    one, other = x_BHTD.chunk(2, dim=-1)
    return torch.cat([one * turn[0] - other * turn[1], one * turn[1] + other * turn[0]], dim=-1)


def hash_of(net: nn.Module) -> str:
    """Hash of all weights and buffers of a network, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def spelled(pieces: Sequence[str]) -> Tensor:
    """Pieces as bytes `(N,)`, so that they are saved among the weights."""
    return torch.frombuffer(bytearray("\n".join(pieces).encode()), dtype=torch.uint8).clone()


def read(spelling: Tensor) -> Words:
    """The pieces that :func:`spelled` made bytes of."""
    return Words(tuple(bytes(spelling.cpu().tolist()).decode().split("\n")))


@dataclass(eq=False)
class LanguageModel:
    """Words, the network that was trained on them, and what it was trained on.

    Parameters
    ----------
    words
        The tokenizer.
    net
        The network, of which no weight changes any more.
    told
        How it was trained: number of texts and tokens, loss, seed.
    """

    words: Words
    net: Language
    told: Mapping[str, float | int]

    def __post_init__(self) -> None:
        self.net.requires_grad_(False).eval()

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        return hash_of(self.net)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        words: int = 2000,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        steps: int = 600,
        batch_size: int = 16,
        context: int = 96,
        lr: float = 3e-3,
        seed: int = 0,
        progress: bool = True,
    ) -> LanguageModel:
        """Train one on some texts, such as those of :func:`sq_imputer.genes.gene_prompts`.

        Parameters
        ----------
        texts
            Texts, which are learned one after the other in a drawn order.
        words, width, depth, heads
            What it is made of.
        steps, batch_size, context, lr
            Training: steps of so many stretches of so many tokens, by AdamW, whose rate rises and falls.
        seed
            Of initial weights, and of which stretches are taken.
        """
        texts = list(texts)
        vocabulary, rng = Words.of(texts, words), np.random.default_rng(seed)
        net = drawn(len(vocabulary), width, depth, heads, seed)
        stream = np.concatenate([[0, *vocabulary(texts[k])] for k in rng.permutation(len(texts))])
        stream = torch.from_numpy(np.resize(stream, max(len(stream), context + 2)).astype(np.int64))
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.98))
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        losses = []
        for _ in track(range(steps), "training a language model", steps, shown=progress):
            starts = rng.integers(0, len(stream) - context - 1, size=batch_size)
            ids = torch.stack([stream[start : start + context + 1] for start in starts])
            losses.append(_step(net, ids, optimizer))
            rate.step()
        last = float(np.mean(losses[-max(1, steps // 10) :]))
        return cls(vocabulary, net, {"texts": len(texts), "tokens": len(stream), "loss": last, "seed": seed})

    def save(self, path: str | Path) -> None:
        """Write `language.json` and `language.safetensors` into a folder, which is made if needed."""
        from safetensors.torch import save

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        weights = save({name: value.contiguous() for name, value in self.net.state_dict().items()})
        said = {"format": FORMAT, **shape_of(self.net), "words": self.words.pieces, "told": dict(self.told)}
        said["sha256"] = hashlib.sha256(weights).hexdigest()
        for name, content in ((WEIGHTS, weights), (SETTINGS, json.dumps(said, indent=1).encode())):
            part = folder / f".{name}.part"
            part.write_bytes(content)
            os.replace(part, folder / name)

    @classmethod
    def load(cls, path: str | Path) -> LanguageModel:
        """Read a folder written by :meth:`save`. Nothing in it is run, and every weight must fit.

        Raises
        ------
        MissingKey
            If there is no such folder or file.
        BadInput
            If it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        folder = Path(path)
        for name in (SETTINGS, WEIGHTS):
            if not (folder / name).is_file():
                raise MissingKey(f"no '{name}' in '{folder}'; give a folder written by LanguageModel.save().")
        said, content = read_json(folder / SETTINGS, strict=True), (folder / WEIGHTS).read_bytes()
        _check(said, folder)
        if hashlib.sha256(content).hexdigest() != said["sha256"]:
            raise BadInput(f"'{folder / WEIGHTS}' does not have the sha256 that {SETTINGS} names. Save it again.")
        with torch.device("meta"):
            net = Language(len(said["words"]), said["width"], said["depth"], said["heads"])
        try:
            weights = load(content)
        except (SafetensorError, KeyError, ValueError) as error:
            raise BadInput(f"'{folder / WEIGHTS}' is not safetensors: {error}. Save it again.") from error
        wrong = misfit(net.state_dict(), weights)
        if wrong:
            raise BadInput(f"the weights in '{folder}' do not fit what {SETTINGS} says: {wrong}.")
        net.load_state_dict(weights, assign=True)
        return cls(Words(tuple(said["words"])), net, said["told"])

    def encode(self, texts: Sequence[str], *, most: int = 128) -> np.ndarray:
        """Vectors `(n, W)` of texts: the mean of the hidden states of their first `most` tokens."""
        found = []
        for text in texts:
            ids = torch.tensor([[0, *self.words(text)[:most]]])
            with torch.inference_mode():
                found.append(self.net(self.net.table[ids])[0].mean(dim=0).numpy())
        return np.stack(found)


def shape_of(net: Language) -> dict[str, int]:
    """Width, depth and heads of a network."""
    return {"width": net.table.shape[1], "depth": len(net.blocks), "heads": net.blocks[0].attention.heads}


def net_loss(net: Language, ids_BT: Tensor) -> Tensor:
    """Mean cross-entropy of every token but the first, told from those before it."""
    hidden = net(net.table[ids_BT[:, :-1]])
    return nn.functional.cross_entropy((hidden @ net.table.T).flatten(0, 1), ids_BT[:, 1:].flatten())


def _step(net: Language, ids_BT: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Learn from some stretches; the loss before that."""
    with torch.enable_grad(), one_thread():  # sums of several threads differ in the last bits, and so would the hash
        loss = net_loss(net, ids_BT)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return loss.item()


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: up over a tenth of the steps, then down to a twentieth."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, 0.05 + 0.95 * max(0.0, (steps - step) / max(1, steps - warm)))


def _check(said, folder: Path) -> None:
    """Raise `BadInput` unless the settings are those of a language model of bearable size."""
    again = f"'{folder / SETTINGS}' is damaged, or of another version. Save the language model again."
    if not isinstance(said, dict) or said.get("format") != FORMAT or type(said.get("sha256")) is not str:
        raise BadInput(again)
    most = {"width": MOST_WIDTH, "depth": MOST_DEPTH, "heads": MOST_WIDTH}
    whole = all(type(said.get(name)) is int and 1 <= said[name] <= top for name, top in most.items())
    words = said.get("words")
    named = isinstance(words, list) and 3 <= len(words) <= MOST_WORDS and all(type(word) is str for word in words)
    if not whole or not named or len(set(words)) < len(words) or not isinstance(said.get("told"), dict):
        raise BadInput(again)
