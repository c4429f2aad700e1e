"""The pieces of a SentencePiece model, such as SigLIP's c4_en."""
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Self

import sentencepiece

from cc_jax.data.text_form import PAD, SIGLIP, SIGLIP2, TextForm
from cc_jax.models.text import EOS

UNK = 2                     # with PAD and EOS, as in T5's and SigLIP's models
GEMMA_BOS = 2               # where Gemma's has the beginning of a text, and T5's and SigLIP's none

_SPACE = "\u2581"           # what SentencePiece spells " " as


class SentencePieceVocabulary:
    """Text as it is given -> ids. Safe to share between threads."""
    file_name = "tokenizer.model"

    def __init__(self, processor: sentencepiece.SentencePieceProcessor):
        self._processor = processor
        falls_back = processor.is_byte(processor.piece_to_id("<0x00>"))
        self._byte_pieces = frozenset(f"<0x{byte:02X}>" for byte in range(256)) if falls_back else frozenset()

    @classmethod
    def parse(cls, model: bytes) -> Self:
        """Raises ValueError for a file that can't be used; the message goes on after the file's name."""
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(f"is not a SentencePiece model; it has {len(model)} bytes beginning {model[:16]!r}.") from error
        if processor.eos_id() != EOS:
            raise ValueError(f"has {processor.eos_id()} as its end-of-sentence id; it must be {EOS}: train the "
                             f"model with --pad_id={PAD} --eos_id={EOS} --unk_id={UNK} --bos_id=-1.")
        return cls(processor)

    @property
    def size(self) -> int:
        return self._processor.vocab_size()

    @property
    def form(self) -> TextForm:
        """What checkpoints with such a vocabulary were trained on: SigLIP's form, or SigLIP 2's for Gemma's."""
        return SIGLIP2 if self._processor.bos_id() == GEMMA_BOS else SIGLIP

    def ids(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def places(self, text: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Which of the text's pieces [first, end) hold characters of each range [start, end) of it, (0, 0) where none do."""
        spelled, origins = self._processor.normalize(text, with_offsets=True)
        pieces = self._processor.encode(text, out_type=str)
        starts = [0, *accumulate(1 if piece in self._byte_pieces else len(piece.encode()) for piece in pieces)]
        found = []
        for start, end in ranges:
            low, high = _spelled_range(spelled, origins, start, end)
            found.append((bisect_right(starts, low) - 1, bisect_left(starts, high)) if low < high else (0, 0))
        return found


def _spelled_range(spelled: str, origins: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Where the characters [start, end) of a text stand in its spelling, the normal form that is cut into pieces.

    Args: origins: which character of the text each one of `spelled` comes from, ascending: one may become several ("½"),
    and several one (a letter and its accent).
    Returns: bytes [low, high) of the spelling's UTF-8; pieces may be single bytes.
    """
    low = bisect_left(origins, origins[max(bisect_right(origins, start) - 1, 0)])
    low = max(low, spelled.startswith(_SPACE))      # the space that goes before every text has the origin of the first
    high = bisect_left(origins, end)
    return len(spelled[:low].encode()), len(spelled[:high].encode())
