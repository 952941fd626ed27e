r"""GTA-style: DNA is put in the words of a language model, which reads it after what is written about the gene.

The window of a gene is read base by base and taken together in T bins :math:`h_t`. Prototypes :math:`P = A W` are
mixtures of the word embeddings W of a language model, by a learned A. Every bin asks them, in several heads,

.. math::

    o_t = W_o \,\big\Vert_h \sum_s a^h_{ts} \, (P W^h_v)_s, \qquad
    a^h_{t\cdot} = \mathrm{softmax}\big((h_t W^h_q)(P W^h_k)^\top / \sqrt e\big)

so that what a head says of a bin is a mixture of words. The language model reads the prompt of the gene and then
:math:`o_1 \dots o_T`. No weight of it changes, and the gradient goes through it. The read-out takes the mean of its
states, each weighted by attention, in several heads, to a number per context.

**Established** (Honig, Zhan, Wu and Zhang 2024; the abstract): sequence features are aligned to tokens of a frozen
language model, and annotations of the gene are its prompt. **Nothing more is**: no code is known, nor the language
model, the features, the window, the loss or the split. Hence "GTA-*style*", and none of its figures is claimed here.
The way to prototypes is that of Time-LLM (Jin et al. 2024).

**Ours** is all else: the small language model that is trained on the prompts themselves before the fit, unless a
folder or a model of transformers on this machine is named (`language`); a prompt right before the DNA of its gene,
whatever the length of others; the prototypes' words, which are those of the training prompts; `readout="all"`, which
takes the states of the prompt as well as those of the DNA (`"dna"` takes the latter alone, as Time-LLM does); squared
error of standardized expression. `length=0` reads no DNA: prompts alone, of which the frozen model says the same in
every epoch, which is computed once.

**Text predicts expression by itself**: gene sets say where genes are at work. Controls are settings: `prompt=0` (no
text), `length=0` (no DNA), `lm="none"` (word embeddings go to the read-out as they are) and `lm="random"` (weights that
were never trained); and windows whose texts are dealt out to other genes. On her2st A1, without DNA, genes of
chromosomes that it has not seen are predicted as by ridge on gene sets and names (r .438 both); word embeddings alone
do about as well (.426), and ridge on the words of the same texts does better than all (.483; `benchmarks/gta.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sq_imputer.contract import Batch, Needs, Prediction, Source
from sq_imputer.errors import BadInput
from sq_imputer.genes.prompts import text_of
from sq_imputer.nn import pretrained
from sq_imputer.nn.alignment import Alignment, ReadOut, in_order
from sq_imputer.nn.bases import one_hot
from sq_imputer.nn.drawn import Dropout
from sq_imputer.nn.language import SETTINGS, Language, LanguageModel, Words, drawn, read, shape_of, spelled
from sq_imputer.nn.sequence import BACKBONES, Trunk, in_bins, width_before
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.ranges import one_of, within

# B genes, T bins, P tokens of a prompt, N tokens in all, V words, W width of a word, S prototypes, F width of a bin

BYTES = 8  # of text that are read for each token of a prompt
UNREAD = 32  # tokens of a text that no prompt is made of
MOST_KEPT = 2**28  # numbers of states of prompts that are kept during a fit


@dataclass(frozen=True)
class Config:
    """What it is made of.

    Parameters
    ----------
    length
        Base pairs of a window; 0 reads prompts alone.
    bins, backbone, width, layers
        Bins of a window, and the blocks that read it (`sq_imputer.nn.sequence`).
    prompt
        Most tokens of a prompt; 0 for none.
    language
        Folder of a language model (`sq_imputer.nn.language.LanguageModel.save`), or name or folder of a causal
        one of transformers, on this machine; if empty, one is trained on the prompts of the fit.
    lm
        `"frozen"`; or a control: `"random"` weights, or `"none"`.
    words, lm_width, lm_depth, lm_heads, lm_steps
        Of the language model that is trained.
    prototypes, heads, head_width, align_dropout
        Of the alignment: the share of attention that is dropped in training.
    readout
        States that the read-out sees: `"all"`, or those of the `"dna"`.
    hidden, pool_heads, pool_width, dropout
        Of the read-out; its pooled states have `pool_heads * pool_width` numbers.
    lr, weight_decay, epochs, batch_size, validation
        Training; `validation` is the share of genes held out to stop early, of whole chromosomes where there are some.
    calibration
        Parts of the training data left out in turn to measure the error, each a fit.
    """

    length: int = within(1000, 0)
    bins: int = within(32, 1)
    backbone: str = one_of("dilated", BACKBONES)
    width: int = within(32, 1)
    layers: int = within(4, 1)
    prompt: int = within(96, 0)
    language: str = ""
    lm: str = one_of("frozen", ("frozen", "random", "none"))
    words: int = within(4000, 1)
    lm_width: int = within(128, 2)
    lm_depth: int = within(2, 1)
    lm_heads: int = within(4, 1)
    lm_steps: int = within(600, 1)
    prototypes: int = within(64, 1)
    heads: int = within(4, 1)
    head_width: int = within(16, 1)
    align_dropout: float = within(0.1, 0, below=1)
    readout: str = one_of("all", ("all", "dna"))
    hidden: int = within(128, 1)
    pool_heads: int = within(8, 1)
    pool_width: int = within(16, 1)
    dropout: float = within(0.3, 0, below=1)
    lr: float = within(1e-3, 0)
    weight_decay: float = within(0.05, 0)
    epochs: int = within(6, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.0, 0, below=1)
    calibration: int = within(3, 0, but=1)

    def __post_init__(self) -> None:
        if not self.length and (not self.prompt or self.readout == "dna"):
            raise BadInput(
                f"gta.Config has length={self.length}, prompt={self.prompt} and readout={self.readout!r}: there is "
                "nothing to read. Give it a window, or a prompt and readout='all'."
            )

    @classmethod
    def small(cls) -> Config:
        """For tests: short windows, few words, a narrow language model of few steps."""
        language = {"words": 60, "lm_width": 16, "lm_depth": 1, "lm_heads": 2, "lm_steps": 15, "prompt": 12}
        shape = {"bins": 4, "width": 16, "layers": 2, "prototypes": 16, "heads": 2, "head_width": 8}
        rest = {"hidden": 32, "pool_heads": 4, "pool_width": 8, "dropout": 0.0, "align_dropout": 0.0}
        return cls(length=64, **language, **shape, **rest, lr=5e-3, epochs=25, batch_size=8, calibration=2)


class Model(Predictor):
    """DNA in the words of a frozen language model, read after what is written about the gene."""

    Config = Config
    draws_by_name = True
    card = ModelCard(
        name="gta",
        summary="DNA of a gene in the words of a frozen language model, which reads it after a prompt; GTA-style.",
        paper=(
            "Honig, Zhan, Wu, Zhang: GTA, Genetic sequence Token Alignment, 2024 (arXiv:2410.01858), of which no code "
            "is known: this follows its abstract, and the prototypes of Time-LLM (Jin et al., ICLR 2024)."
        ),
        doi="10.48550/arXiv.2410.01858",
        citation=(
            "@misc{honig2024gta,\n"
            "  title={Long-range gene expression prediction with token alignment of large language model},\n"
            "  author={Honig, Edouardo and Zhan, Huixin and Wu, Ying Nian and Zhang, Zijun Frank},\n"
            "  year={2024}, doi={10.48550/arXiv.2410.01858}\n}"
        ),
        established="Sequence features aligned to tokens of a frozen language model; annotations of genes as prompts.",
        ours="All else: the small language model, trunk, bins, read-out, loss, how prompt and DNA are put together.",
        limits=(
            "DNA is the same in all spots of a tissue: this says how genes differ, not places. Text alone predicts "
            "expression, and ridge on its words does so better (her2st A1: .483, gta .438); the language model adds "
            "little to its word embeddings. DNA of human genes has not been tried. Further numbers are not read."
        ),
        uncertainty="One standard deviation per context, the error on left-out chromosomes.",
        rows="genes",
    )

    def __init__(self, config: Config | None = None, knowledge=None) -> None:
        super().__init__(config, knowledge)
        self._trained: LanguageModel | None = None  # what a fit on parts of the genes takes over
        self._told: list[int] = []  # words of the training prompts, during a fit
        self._words = None  # the tokenizer, once it is asked for
        self._numbers: dict[bytes, Tensor] = {}  # tokens of texts that were seen
        self._kept: dict[bytes, Tensor] | None = None  # states of prompts, during a fit without DNA
        self._n_kept = 0

    @property
    def needs(self) -> Needs:
        """The window, and what is written: a language model learns of it even where no prompt is read."""
        return Needs(sequence=self.config.length, text=BYTES * (self.config.prompt or UNREAD))

    # What it is made of ---------------------------------------------------------------------------

    def further_sizes(self, sources: Sequence[Source]) -> dict[str, int]:
        """The shape of the language model, and how many of its words the prompts have."""
        model, c = self._given(), self.config
        words = self._tokenizer(sources, model)
        self._told = self._used(sources, words)
        used = {"used": len(self._told)}
        if self._of_others:
            return used | {"spelling": 0}
        shape = (
            {"width": c.lm_width, "depth": c.lm_depth, "heads": c.lm_heads} if model is None else shape_of(model.net)
        )
        own = {"words": len(words), "spelling": len(spelled(words.pieces))}
        return used | own | {f"lm_{name}": size for name, size in shape.items()}

    def build(self) -> None:
        """The language model, the trunk, the alignment and the read-out."""
        c, sizes = self.config, self.sizes
        self.register_buffer("spelling", torch.zeros(sizes["spelling"], dtype=torch.uint8))
        self.register_buffer("used", torch.zeros(sizes["used"], dtype=torch.long))
        if sizes["spelling"]:
            self.language = Language(sizes["words"], sizes["lm_width"], sizes["lm_depth"], sizes["lm_heads"])
        else:
            self.language = pretrained.architecture(c.language)
        self.language.requires_grad_(False)
        width = self.language.table.shape[1]
        if c.length:
            self.base = nn.Linear(4 + sizes["tracks"], width_before(c.backbone, c.width))
            self.trunk = Trunk(c.backbone, c.width, c.layers)
            rest = (c.prototypes, c.heads, c.head_width, c.align_dropout)
            self.align = Alignment(c.width, width, sizes["used"], *rest)
        self.readout = ReadOut(width, c.hidden, c.pool_heads, c.pool_width)
        self.head = nn.Sequential(Dropout(c.dropout), nn.Linear(c.pool_heads * c.pool_width, len(self.genes)))

    @property
    def _of_others(self) -> bool:
        """Whether the language model is one of transformers."""
        return bool(self.config.language) and not (Path(self.config.language) / SETTINGS).is_file()

    def _given(self) -> LanguageModel | None:
        """The small language model that was given, or trained before; None if there is none yet."""
        if self._trained is None and self.config.language and not self._of_others:
            return LanguageModel.load(self.config.language)
        return self._trained

    def _tokenizer(self, sources: Sequence[Source], model: LanguageModel | None):
        if self._of_others:
            return pretrained.tokenizer(self.config.language)
        return Words.of(self._texts(sources), self.config.words) if model is None else model.words

    def _used(self, sources: Sequence[Source], words) -> list[int]:
        """Words of the training prompts; all if there are none."""
        found = sorted({number for text in self._texts(sources) for number in words(text)[: self.config.prompt]})
        return found or list(range(len(words)))

    def _texts(self, sources: Sequence[Source]) -> Iterator[str]:
        """What is written about the training genes."""
        needs = Needs(text=self.needs.text)
        for source in sources:
            for batch in source.batches(needs, 256, rows=np.flatnonzero(source.measured)):
                yield from map(text_of, batch.text.numpy())

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Train, or read, the language model; freeze it; then gradient steps on everything else."""
        c, model = self.config, self._given()
        if model is None and not self._of_others:
            shape = {"words": c.words, "width": c.lm_width, "depth": c.lm_depth, "heads": c.lm_heads}
            how = {"steps": c.lm_steps, "seed": plan.seed, "progress": plan.progress}
            model = LanguageModel.train(self._texts(sources), **shape, **how)
        words = self._tokenizer(sources, model)
        self.used.copy_(torch.tensor(self._told))
        if model is None:
            found = pretrained.weights(c.language) if c.lm != "random" else {}
        else:
            self._trained = model
            self.spelling.copy_(spelled(words.pieces))
            shape = shape_of(model.net)
            net = drawn(len(words), **shape, seed=plan.seed + 1) if c.lm == "random" else model.net
            found = net.state_dict()
        if found:
            self.language.load_state_dict(found)
        self._kept, self._n_kept = None if c.length else {}, 0
        try:
            super().optimize(sources, plan)
        finally:
            self._kept = None

    def for_parts(self) -> Model:
        """An unfitted one that takes the language model over: it was told nothing of expression."""
        other = self.fresh()
        other._trained = self._trained
        return other

    # What is read ---------------------------------------------------------------------------------

    @property
    def words(self):
        """The tokenizer."""
        if self._words is None:
            self._words = pretrained.tokenizer(self.config.language) if self._of_others else read(self.spelling)
        return self._words

    def prompts(self, batch: Batch) -> list[Tensor]:
        """Tokens of the prompts, as many as there are up to the most; none without a prompt."""
        if not self.config.prompt:
            return [self.used.new_zeros(0)] * len(batch)
        found = []
        for row in batch.text.cpu().numpy():
            key = row.tobytes()
            if key not in self._numbers:
                numbers = self.words(text_of(row))[: self.config.prompt]
                self._numbers[key] = torch.tensor(numbers or [0])
            found.append(self._numbers[key].to(self.used.device))
        return found

    def bins(self, batch: Batch) -> Tensor:
        """What the trunk says of the bins of windows, `(B, T, F)`."""
        x = one_hot(batch.bases)
        x = x if batch.tracks is None else torch.cat([x, batch.tracks], dim=-1)
        return in_bins(self.trunk(self.base(x)), min(self.config.bins, self.config.length))

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the language model reads, `(B, N, W)`: prompts, then DNA; which tokens there are, and which are DNA."""
        prompts, table = self.prompts(batch), self.language.table
        sizes = torch.tensor([len(one) for one in prompts], device=table.device)
        x_BPW = table[pad_sequence(prompts, batch_first=True)]
        if not self.config.length:
            inside = torch.arange(x_BPW.shape[1], device=table.device) < sizes[:, None]
            return x_BPW, inside, torch.zeros_like(inside)
        tokens, inside = in_order(x_BPW, sizes, self.align(self.bins(batch), table[self.used]))
        return tokens, inside, inside & (torch.arange(tokens.shape[1], device=table.device) >= sizes[:, None])

    def states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the language model makes of prompt and DNA, `(B, N, W)`, and which of it the read-out sees."""
        if self._kept is not None:
            return self._states_kept(batch)
        tokens, inside, dna = self.tokens(batch)
        states = tokens if self.config.lm == "none" else self.language(tokens)
        return states, dna if self.config.readout == "dna" else inside

    def _states_kept(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same of prompts alone, each computed once while there is room."""
        kept, self._kept = self._kept, None
        keys = [row.tobytes() for row in batch.text.cpu().numpy()]
        new = [k for k, key in enumerate(keys) if key not in kept]
        found = {}
        if new:
            with torch.no_grad():
                states, inside = self.states(batch[torch.tensor(new)])
            found = {keys[k]: own[there] for k, own, there in zip(new, states, inside, strict=True)}
            more = self._n_kept + sum(map(Tensor.numel, found.values()))
            if more <= MOST_KEPT:
                kept.update(found)
                self._n_kept = more
        self._kept = kept
        rows = [found[key] if key in found else kept[key] for key in keys]
        sizes = torch.tensor([len(row) for row in rows], device=rows[0].device)
        inside = torch.arange(int(sizes.max()), device=rows[0].device) < sizes[:, None]
        return pad_sequence(rows, batch_first=True), inside

    def pooled(self, batch: Batch) -> Tensor:
        """What is read out of the states, `(B, D)`: the vector of a gene."""
        return self.readout(*self.states(batch))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error of standardized expression."""
        truth = (batch.expression - self.expression_mean) / self.expression_std
        return {"mse": (self.head(self.pooled(batch)) - truth).pow(2).mean()}

    def predict_step(self, batch: Batch) -> Prediction:
        """Expression in every context, and the vector of the gene as its embedding."""
        pooled = self.pooled(batch)
        mean = self.expression_mean + self.expression_std * self.head(pooled)
        return Prediction(mean=mean, std=self.expression_std.expand_as(mean), embedding=pooled)

    def prototype_words(self, n: int = 5) -> list[list[str]]:
        """Of every prototype the words that it is made of most, by the size of their weight."""
        top = self.align.mix.weight.abs().topk(min(n, len(self.used)), dim=1).indices
        return [[self.words.pieces[number] for number in self.used[row].tolist()] for row in top]
