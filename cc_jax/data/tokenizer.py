"""Text -> token ids: SigLIP's text form on top of a SentencePiece model, given by path or trained here."""
import io
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import sentencepiece
from etils import epath
from jaxtyping import Int32

from cc_jax.models.text import EOS

PAD, UNK = 0, 2             # with EOS, as in T5's and SigLIP's models

_CANONICAL = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation dropped ("_" parts words), white space joined: what SigLIP was trained on."""
    return " ".join(text.translate(_CANONICAL).lower().split())


class Tokenizer:
    """A SentencePiece model that encodes as SigLIP does. Safe to share between threads."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor):
        self._processor = processor

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
        if length < 1:
            raise ValueError(f"length={length}; a row of tokens needs at least 1, for its end.")
        rows = np.full((len(texts), length), EOS, np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._processor.encode(canonicalize(text))[:length - 1]
            row[:len(ids)] = ids
        return rows


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
