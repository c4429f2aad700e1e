"""The form of text that a checkpoint was trained on: how it is cleaned before it is cut, and how rows are padded.

    SIGLIP    canonicalised, padded with 1, the id that ends a text           c4_en SentencePiece, 32 000 pieces
    SIGLIP2   lower-cased, punctuation and white space kept, padded with 0    Gemma's vocabulary, 256 000 pieces

Both as transformers has them. big_vision's tokenize keeps punctuation for both, and lower-cases ASCII letters only.
"""
import json
import string
from dataclasses import asdict, dataclass

from cc_jax import strict_json
from cc_jax.models.text import EOS

PAD = 0     # the padding of T5's and Gemma's vocabularies; SigLIP pads with EOS instead, SigLIP 2 with this

_CANONICAL = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation dropped ("_" parts words), white space joined: what SigLIP was trained on."""
    return " ".join(text.translate(_CANONICAL).lower().split())


def lower(text: str) -> str:
    """Lower case, nothing else: what SigLIP 2 was trained on. A character's does not depend on others: "ΣΑΣ" -> "σασ"."""
    return "".join(map(str.lower, text))


CLEANINGS = {"canonicalize": canonicalize, "lower": lower}


@dataclass(frozen=True)
class TextForm:
    """The name of a cleaning, and the id that fills a row after the EOS. Raises ValueError for values not known."""
    cleaning: str
    pad_id: int

    def __post_init__(self):
        if not isinstance(self.cleaning, str) or self.cleaning not in CLEANINGS:
            raise ValueError(f"text cleaning {self.cleaning!r} is not known; it is one of {', '.join(CLEANINGS)}.")
        if self.pad_id not in (PAD, EOS) or not isinstance(self.pad_id, int) or isinstance(self.pad_id, bool):
            raise ValueError(f"pad_id={self.pad_id!r}; rows are padded with {EOS}, the end of text (SigLIP, and towers "
                             f"trained from scratch), or with {PAD} (SigLIP 2).")

    def __str__(self) -> str:
        return f"{self.cleaning}, padded with {self.pad_id}"

    def clean(self, text: str) -> str:
        return CLEANINGS[self.cleaning](text)

    def to_json(self, sha256: str) -> str:
        """Args: sha256: of the tokenizer file that the form goes with."""
        return json.dumps(asdict(self) | {"sha256": sha256}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, sha256: str) -> "TextForm":
        """Reads what `to_json` wrote; by hand, "sha256" may be left out.

        Raises: ValueError for anything else, or where the tokenizer file is another one than it was.
        """
        try:
            values = strict_json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON ({error}).") from error
        known = {"cleaning", "pad_id"}
        if not isinstance(values, dict) or not known <= values.keys() <= known | {"sha256"}:
            raise ValueError("it must be a JSON object with cleaning and pad_id, and no more than sha256 besides.")
        if values.pop("sha256", sha256) != sha256:
            raise ValueError("the tokenizer file beside it is not the one it was written for; put that one back.")
        return cls(**values)


SIGLIP, SIGLIP2 = TextForm("canonicalize", EOS), TextForm("lower", PAD)
