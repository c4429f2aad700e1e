"""Whether texts are tokenised as weights were trained: other ids for the same words pass silently otherwise."""
import re
from collections.abc import Sequence

from cc_jax.convert.weights import Weights, WeightsError
from cc_jax.data.tokenizer import Tokenizer

FILES = ("tokenizer.json", "tokenizer.model", "spiece.model")       # the first of them that lies beside the weights
EMBEDDING = "txt/Embed_0/embedding"


def beside(weights: Weights) -> tuple[str, bytes] | None:
    """(name, bytes) of the vocabulary that lies beside the weights."""
    return next(((name, weights.tokenizer[name]) for name in FILES if name in weights.tokenizer), None)


def check(weights: Weights, tokenizer: Tokenizer, dont_load: Sequence[str] = ()) -> None:
    """Raises WeightsError for another vocabulary than the weights were trained with.

    It is known where one lies beside them; else by its size. Of token embeddings that are not loaded nothing is asked.
    """
    if EMBEDDING not in weights.params or any(re.fullmatch(pattern, EMBEDDING) for pattern in dont_load):
        return
    known, size = beside(weights), weights.params[EMBEDDING].shape[0]
    if known is not None and known[1] != tokenizer.serialized:
        found = f"is not the one that lies beside {weights.where} ({known[0]})"
    elif known is None and tokenizer.vocab_size != size:
        found = f"has {tokenizer.vocab_size} pieces, the text tower of {weights.where} {size}"
    else:
        return
    raise WeightsError(f"the dataset's tokenizer {found}: its ids mean something else; prepare the dataset with the "
                       "checkpoint's own (--tokenizer FILE), name that in config.data.tokenizer, or leave out the token "
                       f"embeddings with config.dont_load=[{EMBEDDING!r}].")
