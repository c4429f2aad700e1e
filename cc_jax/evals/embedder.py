"""What every evaluator stands on: the embeddings of pictures and texts by a model's plain forward pass. Needs no JAX."""
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Patches:
    """Of one picture, on its grid of patches, h down and w across."""
    tokens: Float[np.ndarray, "h w D"]                  # l2-normalised concept tokens
    map_attention: Float[np.ndarray, "n h w"] | None    # of each head of the MAP head, summing to 1; None without one


class ImageFile(bytes):
    """The bytes of an encoded image, and its name, so that an error can say which image is broken."""
    name: str

    def __new__(cls, data: bytes, name: str) -> Self:
        self = super().__new__(cls, data)
        self.name = name
        return self


@dataclass(frozen=True)
class Embedder:
    """`images`: encoded image files (bytes), or pixels -> l2-normalised (N, D); `texts`: strings -> l2-normalised (N, D).

    `images` raises ImageError, which names the file where it is an ImageFile, else its place among the images.
    """
    images: Callable[[Iterable[bytes | np.ndarray]], Float[np.ndarray, "N D"]]
    texts: Callable[[Sequence[str]], Float[np.ndarray, "N D"]]
    params: dict
    at: Callable[[dict], "Embedder"]        # the same towers with other parameters
    patches: Callable[[Iterable[bytes | np.ndarray]], Iterator[Patches]] | None = None      # of pictures, one by one


@dataclass(frozen=True)
class Sized:
    """Items that are read as they are asked for, whose number is known: so that progress can be told."""
    count: int
    items: Iterable

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator:
        return iter(self.items)


def chunks(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
