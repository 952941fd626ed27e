"""What TRIPLEX and models that are built on it share: a spot, the tiles around it and the whole section, fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, Needs, Prediction, Views
from sq_imputer.errors import BadInput
from sq_imputer.nn.drawn import Dropout
from sq_imputer.nn.slide import SlideEncoder
from sq_imputer.nn.transformer import Block, CrossBlock, GridBias
from sq_imputer.nn.turns import STILL, Turn, any_turn
from sq_imputer.ranges import within

# B rows, T parts of a crop, N rows of a section, W width, F features

Guide = Callable[[str, Tensor, Tensor | None], Tensor]  # of "spot" or "around", tokens (B, T, W), and which count
# Of configs for tests and the demo: fewer pixels, parts and tiles, and a narrow network.
SMALL = {"extent_um": 112.0, "size_px": 32, "context_um": (), "tokens": 2, "neighbors": 3, "width": 16}
SMALL |= {"depth": (0, 1, 1, 1), "heads": (2, 2, 2, 2)}


@dataclass(frozen=True)
class Surroundings(Views):
    """The part of a `Config` that says how a spot is seen among its surroundings, for models that see it so.

    Parameters
    ----------
    context_um
        Sides of wider crops, whose features are part of what the section's rows are described by.
    tokens
        Parts along a side that the crop is seen in.
    neighbors
        `k` for the k × k block of crops around the row, an odd number; 0 leaves this branch out.
    whole_slide
        See the whole section; without, a row's own features take the place of what the section makes of them.
    width
        Width of all tokens.
    depth, heads, ratio, dropout
        Blocks, heads, hidden units per width and share dropped in training of the four transformers: of the parts of
        the crop, the block of crops, the section, and the fusion.
    input_dropout
        Share of the encoders' features that is dropped in training.
    whole_rows, window
        Sections of more rows look at each other in windows of so many rows.
    """

    context_um: tuple[float, ...] = within((400.0,), above=0, whole=False)
    tokens: int = within(7, 1)
    neighbors: int = within(5, 0)
    whole_slide: bool = True
    width: int = within(64, 1)
    depth: tuple[int, int, int, int] = within((1, 1, 2, 1), 0, whole=True)
    heads: tuple[int, int, int, int] = within((4, 4, 4, 4), 1, whole=True)
    ratio: tuple[float, float, float, float] = within((2.0, 2.0, 2.0, 2.0), above=0, whole=False)
    dropout: tuple[float, float, float, float] = within((0.3, 0.3, 0.3, 0.3), 0, below=1, whole=False)
    input_dropout: float = within(0.3, 0, below=1)
    whole_rows: int = within(10_000, 1)
    window: int = within(1024, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        place = f"{type(self).__module__.rsplit('.')[-1]}.Config"
        for name in ("depth", "heads", "ratio", "dropout"):
            if len(getattr(self, name)) != len(_PARTS):
                raise BadInput(f"{place}.{name} is {getattr(self, name)}; expected four numbers, of {_PARTS}.")
        odd = [heads for heads in self.heads if self.width % heads]
        if odd:
            raise BadInput(f"{place}.heads has {odd[0]}; expected divisors of width={self.width}.")
        if min(self.depth[2:]) < 1:
            raise BadInput(f"{place}.depth is {self.depth}; section and fusion take 1 block or more.")
        if self.neighbors % 2 == 0 and self.neighbors or self.neighbors == 1:
            raise BadInput(f"{place}.neighbors is {self.neighbors}; expected an odd number from 3 on, or 0 for none.")

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts, of its parts, of the crops around it, and of all rows."""
        seen = {"tokens": self.tokens, "neighbors": self.neighbors, "whole_slide": self.whole_slide}
        return replace(super().needs, **seen)


_PARTS = ("crop", "neighbors", "section", "fusion")


@dataclass(frozen=True)
class Taught(Surroundings):
    """Surroundings, and how a head for every branch is taught.

    Parameters
    ----------
    distillation
        Weight of the fused prediction in the loss of the branches, against that of what was measured.
    detach
        Keep the branches from teaching the fused prediction.
    lr, weight_decay, epochs, batch_size, validation
        Training; `validation` is the share of rows held out to stop early, 0 for none.
    calibration
        Parts of the training data left out in turn to measure the noise, each a fit of as many epochs as were best.
    """

    distillation: float = within(0.3, 0, 1)
    detach: bool = False
    lr: float = within(1e-3, 0)
    weight_decay: float = within(0.1, 0)
    epochs: int = within(60, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.0, 0, below=1)
    calibration: int = within(2, 0, but=1)


class Embedding(nn.Sequential):
    """Features of frozen encoders as tokens of a width."""

    def __init__(self, features: int, width: int, dropout: float) -> None:
        super().__init__(Dropout(dropout), nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))


class GridEncoder(nn.Module):
    """Blocks of attention within a square grid of tokens, by what they are and how far they lie apart."""

    def __init__(self, side: int, width: int, depth: int, heads: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.bias = GridBias(side, heads) if depth else None
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTW: Tensor, inside_BT: Tensor | None = None) -> Tensor:
        """`(B, T, W)` to `(B, T, W)`; what is not `inside` is not looked at."""
        mask = None if self.bias is None else self.bias(inside_BT)
        for block in self.blocks:
            x_BTW = block(x_BTW, mask)
        return self.norm(x_BTW)


class Branches(nn.Module):
    """The three branches and their fusion.

    Parameters
    ----------
    sizes
        Features of a row (`"features"`) and of a part of its crop (`"tokens"`).
    config
        How they are seen.
    """

    def __init__(self, sizes: dict[str, int], config: Surroundings) -> None:
        super().__init__()
        c, width, rest = config, config.width, config.input_dropout
        shape = [(width, *part) for part in zip(c.depth, c.heads, c.ratio, c.dropout, strict=True)]
        self.spot_in = Embedding(sizes["tokens"], width, rest)
        self.spot = GridEncoder(c.tokens, *shape[0])
        if c.neighbors:
            self.around_in = Embedding(sizes["features"] // len(c.needs.views), width, rest)
            self.around = GridEncoder(c.neighbors, *shape[1])
        self.row_in = Embedding(sizes["features"], width, rest)
        if c.whole_slide:
            self.slide = SlideEncoder(*shape[2], most=c.whole_rows, window=c.window)
        width, depth, heads, ratio, dropout = shape[3]
        self.fusion = nn.ModuleList(CrossBlock(width, heads, ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`forward` tells of, the fusion first."""
        return ("fused", "spot", *(("around",) if hasattr(self, "around") else ()), "row")

    def forward(self, batch: Batch, turn: Turn = STILL, guide: Guide | None = None) -> dict[str, Tensor]:
        """What each branch makes of every row, and what they make of it together: `(B, W)` by name.

        Parameters
        ----------
        turn
            As if the section was turned.
        guide
            What changes the tokens of a branch before they are fused; what they were is told as `"spot0"`, `"around0"`.
        """
        row = self._row(batch, turn)
        spot, inside = self.spot(self.spot_in(turn.cells(batch.tokens))), None
        found, parts = {"row": row}, [("spot", spot, None)]
        if hasattr(self, "around"):
            tiles, inside = turn.cells(batch.neighbors), turn.cells(batch.inside)
            parts.append(("around", self.around(self.around_in(tiles), inside), inside))
        fused = 0
        for name, tokens, inside in parts:
            if guide is not None:
                found[f"{name}0"] = _mean(tokens, inside)
                tokens = guide(name, tokens, inside)
            found[name] = _mean(tokens, inside)
            fused = fused + self._fused(row, tokens, inside)
        return found | {"fused": self.norm(fused)}

    def _fused(self, row_BW: Tensor, tokens_BTW: Tensor, inside_BT: Tensor | None) -> Tensor:
        """What a row takes from tokens, `(B, W)`: by the same weights from those of every branch."""
        mask = None if inside_BT is None else inside_BT[:, None, None]
        query = row_BW[:, None]
        for block in self.fusion:
            query = block(query, tokens_BTW, mask)
        return query[:, 0]

    def _row(self, batch: Batch, turn: Turn) -> Tensor:
        """What the section makes of every row `(B, W)`: its rows look at each other once, not once per row."""
        if not hasattr(self, "slide"):
            return self.row_in(batch.features)
        number, row = batch.at.unbind(1)
        found = None
        for k in number.unique().tolist():
            mine = number == k
            said = self._rows_of(batch.slides[k], turn, row[mine])
            found = said.new_zeros(len(batch), said.shape[1]) if found is None else found
            found = found.index_put((mine.nonzero()[:, 0],), said)
        return found

    def _rows_of(self, slide, turn: Turn, only_B: Tensor) -> Tensor:
        """Some rows of a section `(B, W)`, of all rows that are kept with it while these weights predict."""
        if self.training or torch.is_grad_enabled():
            return self.slide(self.row_in(slide.tokens), slide, turn, only_B)
        weights = [*self.slide.parameters(), *self.row_in.parameters()]
        key = ("rows", *((weight.data_ptr(), weight._version) for weight in weights))
        return slide.once(key, lambda: self.slide(self.row_in(slide.tokens), slide, turn))[only_B]


class Seeing:
    """What a model sees whose config says so as :class:`Surroundings` does; goes before `Predictor`."""

    @property
    def needs(self) -> Needs:
        """What the config says: crop, its parts, the tiles around it, the whole section, and more."""
        return self.config.needs

    @property
    def mixes_sections(self) -> bool:
        """A step sees one section, whose rows look at each other once."""
        return not self.config.whole_slide


class Heads(Seeing):
    """A model that predicts by a head for every branch, of which `said` tells; its config is :class:`Taught`."""

    def optimizer(self):
        """AdamW of all weights at once: there are many small ones."""
        how = {"lr": self.config.lr, "weight_decay": self.config.weight_decay, "foreach": True}
        return torch.optim.AdamW(self.parameters(), **how)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of all heads, on standardized expression."""
        truth = (batch.expression - self.expression_mean) / self.expression_std
        return distilled(self.said(batch), truth, self.config.distillation, detach=self.config.detach)

    def predict_step(self, batch: Batch) -> Prediction:
        """What the fused head says, and how far the heads differ; noise is added to it."""
        said = self.said(batch)
        spread = torch.stack(list(said.values())).std(dim=0, correction=0)
        return Prediction(
            mean=self.expression_mean + self.expression_std * said["fused"], std=self.expression_std * spread
        )


def _mean(tokens_BTW: Tensor, inside_BT: Tensor | None) -> Tensor:
    """Mean of the tokens that count, `(B, W)`."""
    if inside_BT is None:
        return tokens_BTW.mean(dim=1)
    share = inside_BT.to(tokens_BTW) / inside_BT.sum(dim=1, keepdim=True)
    return (tokens_BTW * share[..., None]).sum(dim=1)


def turn_of(batch: Batch, training: bool) -> Turn:
    """How a batch is turned in training, crops, tiles, maps and section alike: a quarter turn is none of hexagons."""
    return any_turn(training, quarter=all(slide.hexagonal < 0 for slide in batch.slides))


def distilled(said: dict[str, Tensor], truth_BG: Tensor, alpha: float, *, detach: bool) -> dict[str, Tensor]:
    """Squared errors of the fused prediction and of every branch, which is held to the fused one as well.

    Parameters
    ----------
    said
        `(B, G)` predictions by name; that of `"fused"` is the teacher.
    truth_BG
        What was measured.
    alpha
        Weight of the teacher in the loss of the others, against that of what was measured.
    detach
        Whether the teacher is not taught by the others.

    Returns
    -------
    The parts of the loss by name.
    """
    teacher = said["fused"].detach() if detach else said["fused"]
    parts = {"fused": (said["fused"] - truth_BG).pow(2).mean()}
    for name, own in said.items():
        if name != "fused":
            parts[name] = (1 - alpha) * (own - truth_BG).pow(2).mean() + alpha * (own - teacher).pow(2).mean()
    return parts
