"""Text -> token ids: SigLIP's text form on top of a SentencePiece model, given by path or trained here."""
import io
import string
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
import sentencepiece
from etils import epath
from jaxtyping import Int32

from cc_jax.models.text import EOS

PAD, UNK = 0, 2             # with EOS, as in T5's and SigLIP's models

_SPACE = "\u2581"           # what SentencePiece spells " " as
_CANONICAL = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation dropped ("_" parts words), white space joined: what SigLIP was trained on."""
    return " ".join(text.translate(_CANONICAL).lower().split())


class Tokenizer:
    """A SentencePiece model that encodes as SigLIP does. Safe to share between threads."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor):
        self._processor = processor
        falls_back = processor.is_byte(processor.piece_to_id("<0x00>"))
        self._byte_pieces = frozenset(f"<0x{byte:02X}>" for byte in range(256)) if falls_back else frozenset()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a SentencePiece file. Raises FileNotFoundError, or ValueError for a file that can't be used."""
        try:
            model = epath.Path(path).read_bytes()
        except OSError as error:
            raise FileNotFoundError(f"no tokenizer in {path} ({error.strerror}); give the path of a SentencePiece "
                                    "model, or leave it out: preparation trains one on the captions.") from error
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(f"{path} is not a SentencePiece model; it has {len(model)} bytes beginning "
                             f"{model[:16]!r}.") from error
        if processor.eos_id() != EOS:
            raise ValueError(f"the end-of-sentence id of {path} is {processor.eos_id()}; it must be {EOS}: train the "
                             f"model with --pad_id={PAD} --eos_id={EOS} --unk_id={UNK} --bos_id=-1.")
        return cls(processor)

    @property
    def vocab_size(self) -> int:
        return self._processor.vocab_size()

    @property
    def serialized(self) -> bytes:
        """The model file's bytes."""
        return self._processor.serialized_model_proto()

    def encode(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n length"]:
        """The ids of each text, in its canonical form, cut to length - 1; the rest of the row is EOS.

        So the last position, which the text tower pools, is EOS in every row, and padding is EOS too ("sticky").
        """
        _check_length(length)
        rows = np.full((len(texts), length), EOS, np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._processor.encode(canonicalize(text))[:length - 1]
            row[:len(ids)] = ids
        return rows

    def token_spans(self, text: str, spans: Sequence[tuple[int, int]], length: int) -> Int32[np.ndarray, "n 2"]:
        """Which positions [first, end) of the row `encode([text], length)` hold characters of each span of the text.

        White space at a span's ends does not count. A span that the row does not hold whole, or of which the canonical
        form leaves nothing, gets (0, 0).

        Args: spans: characters [start, end) of `text` as it is given, in any order.
        Raises: ValueError for a span that is not within the text, or a length below 1.
        """
        _check_length(length)
        canonical = canonicalize(text)
        spelled, origins = self._processor.normalize(canonical, with_offsets=True)
        pieces = self._processor.encode(canonical, out_type=str)
        starts = [0, *accumulate(1 if piece in self._byte_pieces else len(piece.encode()) for piece in pieces)]
        found = []
        for start, end in spans:
            if not 0 <= start <= end <= len(text):
                raise ValueError(f"span ({start}, {end}) does not lie in a text of {len(text)} characters; give the "
                                 "text that it was found in, and 0 <= start <= end.")
            # Of each character's canonical form only white space depends on the others, and that only at the ends.
            after = len(canonicalize(text[:end]))
            before = after - len(canonicalize(text[start:end]))
            low, high = _spelled_range(spelled, origins, before, after)
            first, last = bisect_right(starts, low) - 1, bisect_left(starts, high)
            found.append((first, last) if before < after and low < high and last < length else (0, 0))
        return np.array(found, np.int32).reshape(-1, 2)


def _check_length(length: int) -> None:
    if length < 1:
        raise ValueError(f"length={length}; a row of tokens needs at least 1, for its end.")


def _spelled_range(spelled: str, origins: Sequence[int], before: int, after: int) -> tuple[int, int]:
    """Where the characters [before, after) of a text stand in its spelling, the normal form that is cut into pieces.

    Args: origins: which character of the text each one of `spelled` comes from, ascending: one may become several ("½"),
    and several one (a letter and its accent).
    Returns: bytes [low, high) of the spelling's UTF-8; pieces may be single bytes.
    """
    low = bisect_left(origins, origins[max(bisect_right(origins, before) - 1, 0)])
    low = max(low, spelled.startswith(_SPACE))      # the space that goes before every text has the origin of the first
    high = bisect_left(origins, after)
    return len(spelled[:low].encode()), len(spelled[:high].encode())


def train_tokenizer(captions: Iterable[str], path: str | Path, vocab_size: int) -> None:
    """Trains a SentencePiece model on the captions' canonical form and writes it to `path`.

    The model has fewer pieces than `vocab_size` where the captions don't yield as many. The same captions in the same
    order give the same bytes. Raises ValueError where no model can be made.
    """
    texts = [text for text in map(canonicalize, captions) if text]
    if not texts:
        raise ValueError("no caption holds more than punctuation, so there is nothing to train a tokenizer on; give "
                         "one with --tokenizer.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab_size,
            model_type="bpe",   # unigram cuts words to letters where there are few: 45 tokens a scene's caption, not 18
            hard_vocab_limit=False, pad_id=PAD, eos_id=EOS, unk_id=UNK, bos_id=-1,
            max_sentence_length=max(10, *(len(text.encode()) + 1 for text in texts)),   # 10: its least
            num_threads=1,      # the model must not depend on the machine
            minloglevel=2)
    except RuntimeError as error:
        raise ValueError(f"no tokenizer with vocab_size={vocab_size} can be trained on {len(texts)} captions: "
                         f"{error} Choose another --vocab_size, or give a model with --tokenizer.") from error
    Path(path).write_bytes(model.getvalue())
