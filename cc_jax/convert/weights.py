"""The common form of weights on their way in or out: big_vision's names, blocks one by one, read only when asked for."""
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import ml_dtypes
import numpy as np

from cc_jax.config import ConfigError

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
GEMMA_VOCABULARY = 256_000
SHOWN = 20      # differences that an error lists


class WeightsError(ConfigError):
    """Weights that can't be used: a damaged file, another format, another architecture. The message says what to do."""


@dataclass(frozen=True)
class Lazy:
    """An array that is not in memory yet. `read` gives it, checked to be what this says and finite."""
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        return cls(array.shape, array.dtype, lambda: array)

    def then(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The array that `change` makes of this one."""
        return Lazy(shape, self.dtype, lambda: change(self.read()))


@dataclass(frozen=True)
class Tower:
    width: int
    depth: int
    mlp_dim: int
    num_heads: int


@dataclass(frozen=True)
class Sizes:
    """What the architecture of a SigLIP model is given by: all but the numbers themselves."""
    image: Tower
    text: Tower
    patch: int
    res: int            # of the images that the position embeddings are for
    vocab_size: int
    length: int         # positions of the text tower
    embed: int          # width of the embeddings; an image tower of another width ends in a Dense

    @property
    def kind(self) -> str:
        """Which recipe the vocabulary belongs to: "siglip2" (Gemma's) or "siglip"."""
        return "siglip2" if self.vocab_size == GEMMA_VOCABULARY else "siglip"

    @property
    def grid(self) -> int:
        """Patches a side; pixels at the right and the bottom that fill none are left out (So400m/14 at 384: 27)."""
        return self.res // self.patch

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all parameters."""
        shapes = {"t": (1,), "b": (1,), **_dense("txt/head", self.text.width, self.embed),
                  "txt/Embed_0/embedding": (self.vocab_size, self.text.width),
                  "txt/pos_embedding": (1, self.length, self.text.width),
                  "img/pos_embedding": (1, self.grid**2, self.image.width),
                  "img/embedding/kernel": (self.patch, self.patch, 3, self.image.width),
                  "img/embedding/bias": (self.image.width,), "img/MAPHead_0/probe": (1, 1, self.image.width),
                  **_attention("img/MAPHead_0/MultiHeadDotProductAttention_0", self.image),
                  **_norm("img/MAPHead_0/LayerNorm_0", self.image.width), **_mlp("img/MAPHead_0/MlpBlock_0", self.image)}
        if self.embed != self.image.width:
            shapes |= _dense("img/head", self.image.width, self.embed)
        for tower, encoder in ((self.image, "img/Transformer"), (self.text, "txt/Encoder_0")):
            shapes |= _norm(f"{encoder}/encoder_norm", tower.width)
            for i in range(tower.depth):
                block = f"{encoder}/encoderblock_{i}"
                shapes |= _norm(f"{block}/LayerNorm_0", tower.width) | _norm(f"{block}/LayerNorm_1", tower.width)
                shapes |= _attention(f"{block}/MultiHeadDotProductAttention_0", tower) | _mlp(f"{block}/MlpBlock_0", tower)
        return shapes

    def count(self) -> int:
        """The number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.shapes().values())

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], where: str, res: int | None = None) -> Self:
        """The sizes that parameters of these shapes have. `res` chooses among resolutions with the same grid.

        Raises WeightsError that lists what differs from any model with these sizes.
        """
        try:
            patch, _, _, _ = shapes["img/embedding/kernel"]
            grid = round(shapes["img/pos_embedding"][1] ** 0.5)
            fits = res is not None and res // patch == grid
            sizes = cls(_tower(shapes, "img/Transformer"), _tower(shapes, "txt/Encoder_0"), patch,
                        res if fits else grid * patch, shapes["txt/Embed_0/embedding"][0], shapes["txt/pos_embedding"][1],
                        shapes["txt/head/kernel"][1])
        except (KeyError, IndexError, ValueError) as error:
            raise WeightsError(f"{where} holds no SigLIP model with both towers ({error} is missing or of an unknown shape "
                               f"among its {len(shapes)} parameters, such as {', '.join(sorted(shapes)[:3])}); name a "
                               "checkpoint of this architecture.") from error
        require(shapes, sizes.shapes(), where, "a model of these sizes")
        return sizes


@dataclass(frozen=True)
class Weights:
    """Parameters of a model and what is known about where they come from.

    `params` may lack a tower where `sizes` is None. `tokenizer` holds the files that tokenise for it, as the peers name
    them. `masks_padding` is True for text towers that hide their padding (`model.text.mask_padding`), False where it is
    known that they do not, None where the file does not say.
    """
    params: Mapping[str, Lazy]
    where: str
    sizes: Sizes | None = None
    tokenizer: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    masks_padding: bool | None = None
    notes: tuple[str, ...] = ()

    def complete(self) -> Sizes:
        """The sizes, of parameters that make a whole model."""
        return self.sizes or Sizes.of(shapes_of(self.params), self.where)


def shapes_of(params: Mapping[str, Lazy]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in params.items()}


def require(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: str, what: str,
            hint: str = "") -> None:
    """Raises WeightsError listing names and shapes on both sides where they differ."""
    differ = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if differ:
        lines = "\n".join(f"  {name}: {found.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the model"
                          for name in differ[:SHOWN])
        rest = f"\n  and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise WeightsError(f"{where} does not fit {what}: {len(differ)} of {len(found.keys() | wanted.keys())} parameters "
                           f"differ.{hint}\n{lines}{rest}")


def checked(name: str, array: np.ndarray, where: str) -> np.ndarray:
    """`array`, which must be finite."""
    if not np.isfinite(array).all():
        raise WeightsError(f"{where}: {name} holds {int((~np.isfinite(array)).sum())} numbers that are not finite, of "
                           f"{array.size}; the file is damaged, or training diverged: take another.")
    return array


def reading_order(names: Iterable[str]) -> list[str]:
    """The names sorted so that the layers of one stack follow each other: few stacks are then in memory at a time."""
    return sorted(names, key=lambda name: (re.sub(r"\d+", "", name), name))


def unrolled(params: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Blocks stacked along a leading axis (`encoderblock/...`) as blocks one by one (`encoderblock_3/...`)."""
    single = {}
    for name, value in params.items():
        before, scanned, after = name.partition("/encoderblock/")
        if not scanned or not value.shape:
            single[name] = value
            continue
        stack = _Stack(value)
        for i in range(value.shape[0]):
            layer = Lazy(value.shape[1:], value.dtype, lambda stack=stack, i=i: stack.layer(i))
            single[f"{before}/encoderblock_{i}/{after}"] = layer
    return single


def rolled(params: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """The opposite of `unrolled`: blocks one by one, stacked where there are all from 0 on with one shape."""
    groups = {}
    for name, value in params.items():
        block = re.fullmatch(r"(.*/encoderblock)_(\d+)(/.*)", name)
        key, i = (block[1] + block[3], int(block[2])) if block else (name, None)
        groups.setdefault(key, {})[i] = value
    stacked = {}
    for name, layers in groups.items():
        if None in layers:
            stacked[name] = layers[None]
        elif sorted(layers) == list(range(len(layers))) and len({value.shape for value in layers.values()}) == 1:
            rows = [layers[i] for i in range(len(layers))]
            stacked[name] = Lazy((len(rows), *rows[0].shape), rows[0].dtype,
                                 lambda rows=rows: np.stack([row.read() for row in rows]))
        else:
            stacked |= {name.replace("/encoderblock/", f"/encoderblock_{i}/"): value for i, value in layers.items()}
    return stacked


class _Stack:
    """A stacked array, in memory from when its first layer is read until all have been."""

    def __init__(self, lazy: Lazy):
        self._lazy, self._array, self._left = lazy, None, set()

    def layer(self, i: int) -> np.ndarray:
        if self._array is None:
            self._array, self._left = self._lazy.read(), set(range(self._lazy.shape[0]))
        layer = self._array[i]
        self._left.discard(i)
        if not self._left:
            self._array = None
        return layer


def _tower(shapes: Mapping[str, tuple[int, ...]], encoder: str) -> Tower:
    blocks = {name.split("/")[2] for name in shapes if name.startswith(f"{encoder}/encoderblock_")}
    width, num_heads, _ = shapes[f"{encoder}/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"]
    return Tower(width, len(blocks), shapes[f"{encoder}/encoderblock_0/MlpBlock_0/Dense_0/bias"][0], num_heads)


def _dense(name: str, inputs: int, outputs: int) -> dict:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, width: int) -> dict:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _mlp(name: str, tower: Tower) -> dict:
    return _dense(f"{name}/Dense_0", tower.width, tower.mlp_dim) | _dense(f"{name}/Dense_1", tower.mlp_dim, tower.width)


def _attention(name: str, tower: Tower) -> dict:
    heads = (tower.num_heads, tower.width // tower.num_heads)
    shapes = {f"{name}/out/kernel": (*heads, tower.width), f"{name}/out/bias": (tower.width,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{name}/{part}/kernel": (tower.width, *heads), f"{name}/{part}/bias": heads}
    return shapes
