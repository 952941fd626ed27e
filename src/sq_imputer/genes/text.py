"""Texts as vectors: letters in a row, which need no weights, or a language model of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sq_imputer.errors import BadInput, MissingKey

TextEncoder = Callable[[Sequence[str]], np.ndarray]
LEXICAL = "lexical"  # what vectors are called that know spelling and nothing else
BUCKETS = 2**15  # that runs of letters are hashed into
LETTERS = (3, 5)  # shortest and longest run, within a word and its borders
MOST_TOKENS = 512  # of a text that a language model reads


def lexical(texts: Sequence[str], *, dim: int = 256, rare: bool = True, seed: int = 0) -> np.ndarray:
    """Vectors of texts by the runs of letters that they share: TF-IDF, hashed, projected at random, of length 1.

    Knows spelling alone: keratins are alike since they are called so. The cosine of two vectors is that of their
    counts, give or take 1 / sqrt(dim).

    Parameters
    ----------
    texts
        One or more.
    dim
        Width of the vectors.
    rare
        Weigh runs by how rare they are among these texts. Without, a vector depends on its own text alone.
    seed
        Of the projection.

    Returns
    -------
    `(n, dim)` float32.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=LETTERS, n_features=BUCKETS, norm=None)
    counts = hashed.transform(list(texts))  # signed, so that collisions cancel on average
    counts.eliminate_zeros()
    signs, counts.data = np.sign(counts.data), np.abs(counts.data)
    weighted = TfidfTransformer(norm=None, use_idf=rare, sublinear_tf=True).fit_transform(counts)
    weighted.data *= signs
    projection = np.random.default_rng(seed).standard_normal((BUCKETS, dim), dtype=np.float32)
    return unit_length(np.asarray(weighted @ projection))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32; those of length 0 as they are."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def transformer(name: str, *, batch_size: int = 16, device: str = "cpu") -> TextEncoder:
    """A language model of transformers: the mean of its last layer over the tokens of a text.

    Only weights in safetensors are read, and no code of the repository is run. Without a network, weights that were
    downloaded before are found where transformers keeps them, or in a folder given as `name`.

    Parameters
    ----------
    name
        A model on Hugging Face, or a folder.
    batch_size
        Texts at a time.
    device
        Where to run.

    Raises
    ------
    MissingKey
        If transformers is not installed, or there is no such model here.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingKey(
            "transformers is not installed; pip install 'sq-imputer[text]', or pass a callable."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, use_safetensors=True).to(device).eval()
    except (OSError, ValueError) as error:
        raise MissingKey(
            f"no text model '{name}' with weights in safetensors, here or on Hugging Face: {str(error)[:200]}. Give a "
            "folder that holds one, or a callable of texts."
        ) from error

    if tokenizer.pad_token is None:  # as of GPT-2; what is padded is masked, so that any token will do
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)

    def encode(texts: Sequence[str]) -> np.ndarray:
        import torch

        found = []
        for first in range(0, len(texts), batch_size):
            some = list(texts[first : first + batch_size])
            tokens = tokenizer(some, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
            with torch.inference_mode():
                said = model(**tokens.to(device)).last_hidden_state
            mask = tokens["attention_mask"][:, :, None]
            found.append(((said * mask).sum(dim=1) / mask.sum(dim=1)).float().cpu().numpy())
        return np.concatenate(found)

    return encode


def encoded(texts: Sequence[str], encode: TextEncoder | str | None) -> np.ndarray:
    """Vectors `(n, D)` of texts, by spelling, by the name of a language model, or by a function of the user's."""
    if encode is None:
        return lexical(texts)
    if not callable(encode) and not isinstance(encode, str):
        raise BadInput(f"encode is a {type(encode).__name__}; expected a function of texts, or a name of transformers.")
    vectors = np.asarray((transformer(encode) if isinstance(encode, str) else encode)(list(texts)))
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise BadInput(f"encode gave {vectors.shape} of {len(texts)} texts; expected one row per text.")
    return vectors
