"""The pieces of a Gemma-style `tokenizer.json`, as SigLIP 2 has it, by the `tokenizers` library."""
import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Self

import tokenizers

from cc_jax import strict_json
from cc_jax.data.text_form import PAD, SIGLIP2, TextForm
from cc_jax.models.text import EOS

NAMES = {PAD: "<pad>", EOS: "<eos>"}
MAX_SIZE = 2**24            # pieces; Gemma 3 has 2**18

_SPACE = "\u2581"
# What may be done to text before it is cut: Gemma's steps, which can neither run long nor lose track of characters.
_NORMALIZERS = ({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}, {"type": "Lowercase"})
_PRE_TOKENIZER = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


class JsonVocabulary:
    """Text as it is given -> ids. Safe to share between threads. What the file says of padding and length is not used."""
    file_name = "tokenizer.json"
    form: TextForm = SIGLIP2

    def __init__(self, tokenizer: tokenizers.Tokenizer, size: int):
        self._tokenizer, self.size = tokenizer, size

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError for a file that can't be used; the message goes on after the file's name."""
        try:
            strict_json.check_depth(data.decode())
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:      # where the library's own code fails, it raises what is no Exception
            raise ValueError(f"is not a tokenizer.json ({str(error)[:200]}); it has {len(data)} bytes.") from error
        _check_steps(tokenizer)
        size = _check_ids(tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.post_processor = None
        tokenizer.encode_special_tokens = True      # "<eos>" in a caption is text, as SentencePiece has it
        vocabulary = cls(tokenizer, size)
        if any(NAMES.keys() & vocabulary.ids(name) for name in NAMES.values()):
            raise ValueError("makes text that spells them <eos> or <pad>; give the file as the checkpoint has it.")
        return vocabulary

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def places(self, text: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Which of the text's pieces [first, end) hold characters of each range [start, end) of it, (0, 0) where none do."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        starts, ends = [start for start, _ in offsets], [end for _, end in offsets]     # both ascend
        found = ((bisect_right(ends, start), bisect_left(starts, end)) for start, end in ranges)
        return [(first, last) if first < last else (0, 0) for first, last in found]


def _check_steps(tokenizer: tokenizers.Tokenizer) -> None:
    """Raises ValueError unless the file's steps are Gemma's."""
    model = tokenizer.model
    if not isinstance(model, tokenizers.models.BPE):
        raise ValueError(f"has a {type(model).__name__} model, Gemma's is BPE; for SigLIP give the SentencePiece file.")
    wrong = [f"{name}={value!r}" for name, value in (
        ("dropout", model.dropout), ("continuing_subword_prefix", model.continuing_subword_prefix),
        ("end_of_word_suffix", model.end_of_word_suffix)) if value]
    if not model.byte_fallback:
        wrong.append("byte_fallback=False")
    if model.unk_token is None or tokenizer.token_to_id(model.unk_token) in (None, *NAMES):
        wrong.append(f"unk_token={model.unk_token!r}")
    steps = _as_json(tokenizer.normalizer)
    steps = steps["normalizers"] if steps and steps["type"] == "Sequence" else [steps] if steps else []
    wrong += [f"the normalizer {step}" for step in steps if step not in _NORMALIZERS]
    if (step := _as_json(tokenizer.pre_tokenizer)) not in (None, _PRE_TOKENIZER):
        wrong.append(f"the pre-tokenizer {step}")
    if wrong:
        raise ValueError(f"is not a Gemma-style tokenizer.json: it has {', '.join(wrong)[:500]}. Gemma's is BPE with bytes "
                         "for what it lacks, and only replaces spaces; for others give the SentencePiece file.")


def _check_ids(tokenizer: tokenizers.Tokenizer) -> int:
    """The number of pieces. Raises ValueError where ids are not those of Gemma, or of two pieces."""
    vocabulary, added = tokenizer.get_vocab(with_added_tokens=True), tokenizer.get_added_tokens_decoder()
    for number, name in NAMES.items():
        if vocabulary.get(name) != number:
            raise ValueError(f"has {name} as {vocabulary.get(name, 'no piece')}; SigLIP 2's vocabulary, Gemma's, has it as "
                             f"{number}: for SigLIP give the SentencePiece file.")
        if number not in added or not added[number].special:
            raise ValueError(f"has {name} as an ordinary piece, which a caption could spell; it must be a special token.")
    size = max(vocabulary.values()) + 1
    different = len(set(vocabulary.values()))
    if different < len(vocabulary) or size > MAX_SIZE:
        raise ValueError(f"has {len(vocabulary)} pieces with {different} different ids up to {size - 1}; each needs its "
                         f"own, below {MAX_SIZE}.")
    return size


def _as_json(step: Any) -> dict | None:
    return None if step is None else json.loads(step.__getstate__())
