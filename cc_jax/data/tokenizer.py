"""Text -> token ids: a vocabulary, given by path or trained here, and the text form that a checkpoint was trained on.

In a folder, of a run or a prepared dataset, both lie side by side: the vocabulary as `tokenizer.model` (SentencePiece) or
`tokenizer.json` (the tokenizers library), the form as `tokenizer_form.json`. Without the latter the form is that of the
vocabulary: `text_form.SIGLIP2` for Gemma's, `text_form.SIGLIP` for any other.
"""
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import sentencepiece
from etils import epath
from jaxtyping import Int32

from cc_jax.data.json_vocabulary import JsonVocabulary
from cc_jax.data.sentencepiece_vocabulary import UNK, SentencePieceVocabulary
from cc_jax.data.text_form import PAD, TextForm, canonicalize
from cc_jax.models.text import EOS

FILES = (SentencePieceVocabulary.file_name, JsonVocabulary.file_name)
MAX_BYTES = 2**26           # of a vocabulary's file; Gemma's tokenizer.json has about 2**25


class Vocabulary(Protocol):
    """Cleaned text -> ids, which are never PAD or EOS."""
    file_name: str
    form: TextForm
    size: int

    def ids(self, text: str) -> list[int]: ...

    def places(self, text: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]: ...


class Tokenizer:
    """Encodes as SigLIP and SigLIP 2 do. Safe to share between threads."""

    def __init__(self, vocabulary: Vocabulary, form: TextForm, serialized: bytes):
        self.form, self.serialized = form, serialized       # the file's bytes
        self._vocabulary = vocabulary

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a vocabulary's file, or the one in a folder, and the form beside it.

        Raises: FileNotFoundError, or ValueError for files that can't be used or don't go together.
        """
        path = _find(epath.Path(path))
        try:
            if (size := path.stat().length) > MAX_BYTES:
                raise ValueError(f"{path} has {size} bytes; a tokenizer has at most {MAX_BYTES}.")
            serialized = path.read_bytes()
        except OSError as error:
            raise FileNotFoundError(f"no tokenizer in {path} ({error.strerror}); give the path of a SentencePiece model or "
                                    "tokenizer.json, or leave it out: preparation trains one on the captions.") from error
        try:
            vocabulary = (JsonVocabulary if serialized[:1] == b"{" else SentencePieceVocabulary).parse(serialized)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        form_path = _form_path(path)
        try:
            form = TextForm.from_json(form_path.read_text(), _sha256(serialized)) if form_path.exists() else vocabulary.form
        except ValueError as error:
            raise ValueError(f"{form_path} does not say the form of {path.name}: {error}") from error
        return cls(vocabulary, form, serialized)

    def save(self, folder: str | Path) -> None:
        """Writes the vocabulary and its form, the vocabulary last: where it is, the form is."""
        path = epath.Path(folder) / self.file_name
        _form_path(path).write_text(self.form.to_json(_sha256(self.serialized)))
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(self.serialized)
        partial.replace(path)

    def padded_with(self, pad_id: int) -> Self:
        """The same, but for the id that fills rows."""
        return type(self)(self._vocabulary, replace(self.form, pad_id=pad_id), self.serialized)

    @property
    def file_name(self) -> str:
        return self._vocabulary.file_name

    @property
    def vocab_size(self) -> int:
        return self._vocabulary.size

    @property
    def fingerprint(self) -> str:
        """What differs between tokenizers that give different ids, to be compared and shown."""
        return f"{_sha256(self.serialized)[:16]} ({self.form})"

    def encode(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n length"]:
        """The ids of each text, cleaned, cut to length - 1; then EOS, and the form's padding to the row's end.

        So where padding is EOS too ("sticky"), the last position, which the text tower pools, is EOS in every row.
        """
        _check_length(length)
        rows = np.full((len(texts), length), self.form.pad_id, np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._vocabulary.ids(self.form.clean(text))[:length - 1]
            row[:len(ids)], row[len(ids)] = ids, EOS
        return rows

    def token_spans(self, text: str, spans: Sequence[tuple[int, int]], length: int) -> Int32[np.ndarray, "n 2"]:
        """Which positions [first, end) of the row `encode([text], length)` hold characters of each span of the text.

        White space at a span's ends does not count. A span that the row does not hold whole, or of which cleaning leaves
        nothing, gets (0, 0).

        Args: spans: characters [start, end) of `text` as it is given, in any order.
        Raises: ValueError for a span that is not within the text, or a length below 1.
        """
        _check_length(length)
        ranges = [self._cleaned_range(text, start, end) for start, end in spans]
        places = self._vocabulary.places(self.form.clean(text), ranges)
        found = [place if start < end and place[1] < length else (0, 0)
                 for place, (start, end) in zip(places, ranges, strict=True)]
        return np.array(found, np.int32).reshape(-1, 2)

    def _cleaned_range(self, text: str, start: int, end: int) -> tuple[int, int]:
        """Where the characters [start, end) of a text stand in the cleaned one, white space at their ends left out."""
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span ({start}, {end}) does not lie in a text of {len(text)} characters; give the "
                             "text that it was found in, and 0 <= start <= end.")
        span = text[start:end].strip()
        # Of each character's cleaned form only white space depends on the others, and that only at the ends.
        after = len(self.form.clean(text[:start + len(text[start:end].rstrip())]))
        return after - len(self.form.clean(span)), after


def is_in(folder: str | Path) -> bool:
    """Whether the folder holds a tokenizer."""
    return any((epath.Path(folder) / name).exists() for name in FILES)


def _find(path: epath.Path) -> epath.Path:
    """The vocabulary's file, where the path is a folder."""
    if not path.is_dir():
        return path
    names = [name for name in FILES if (path / name).exists()]
    if len(names) != 1:
        raise (ValueError if names else FileNotFoundError)(
            f"{' and '.join(names) or 'no tokenizer'} in {path}; it must hold one of {' and '.join(FILES)}.")
    return path / names[0]


def _form_path(path: epath.Path) -> epath.Path:
    return path.with_name(f"{path.stem}_form.json")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_length(length: int) -> None:
    if length < 1:
        raise ValueError(f"length={length}; a row of tokens needs at least 1, for its end.")


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
