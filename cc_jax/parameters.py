"""A model's parameters looked at: their tree with sizes and norms, what positions share, what training changed."""
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cc_jax.convert import formats, workdir

Parameters = Mapping[str, Float[np.ndarray, "..."]]     # by name, as in big_vision, blocks one by one


@dataclass(frozen=True)
class Summary:
    """A parameter, or all of a module."""
    name: str
    shape: str              # of a parameter; of a module, how many it has
    count: int              # numbers
    norm: float
    mean: float

    @property
    def rms(self) -> float:
        """What a number of it is in size, however many there are."""
        return self.norm / self.count**0.5


def read(model: str) -> Parameters:
    """The parameters of a run's newest checkpoint, of WORKDIR@STEP, or of weights in any format, as float32.

    Raises: ConfigError, or FileNotFoundError that names the steps there are.
    """
    path, at, step = model.rpartition("@")
    weights = workdir.read(path, int(step)) if at and step.isdecimal() else formats.open_weights(model)
    return {name: lazy.read().astype(np.float32) for name, lazy in weights.params.items()}


def modules(params: Parameters, depth: int) -> dict[str, Parameters]:
    """The parameters by the first `depth` parts of their names, in order: blocks by number, not by letter."""
    numbered = lambda name: [(int(part.rpartition("_")[2]) if part.rpartition("_")[2].isdecimal() else -1, part)
                             for part in name.split("/")]
    found = {}
    for name in sorted(params, key=numbered):
        found.setdefault("/".join(name.split("/")[:depth]), {})[name] = params[name]
    return found


def summarise(params: Parameters, depth: int | None = None) -> list[Summary]:
    """A line for each parameter or, given a depth, for each module and each parameter that lies above."""
    summaries = []
    for name, group in modules(params, depth or max(name.count("/") + 1 for name in params)).items():
        arrays, count = list(group.values()), sum(array.size for array in group.values())
        shape = str(arrays[0].shape) if list(group) == [name] else f"{len(arrays)} array{'s' * (len(arrays) > 1)}"
        norm = sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays) ** 0.5
        mean = sum(float(array.sum(dtype=np.float64)) for array in arrays) / count
        summaries.append(Summary(name, shape, count, norm, mean))
    return summaries


def table(summaries: list[Summary]) -> str:
    """Summaries as text, with the numbers of all together."""
    rows = [("parameter", "shape", "numbers", "norm", "rms", "mean")]
    rows += [(each.name, each.shape, f"{each.count:,}".replace(",", " "), f"{each.norm:.4g}", f"{each.rms:.4f}",
              f"{each.mean:+.4f}") for each in summaries]
    total = f"{sum(each.count for each in summaries):,}".replace(",", " ")
    rows.append(("parameters in all", "", total, f"{sum(each.norm**2 for each in summaries)**0.5:.4g}", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{'<' if i < 2 else '>'}{width}}"
                               for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows)


def position_similarity(embedding: Float[np.ndarray, "1 n d"]) -> Float[np.ndarray, "n n"]:
    """The cosines between all pairs of positions. What all positions share (their mean) says nothing and is taken off."""
    own = embedding[0] - embedding[0].mean(axis=0)
    unit = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def changes(before: Parameters, after: Parameters) -> dict[str, float]:
    """How far each parameter moved, in units of its norm before: |after - before| / |before|, the most moved first.

    A parameter that was all zeros and is no longer has moved infinitely far. Raises ValueError where names or shapes differ.
    """
    differ = sorted(name for name in before.keys() | after.keys()
                    if getattr(before.get(name), "shape", None) != getattr(after.get(name), "shape", None))
    if differ:
        shapes = [getattr(params.get(differ[0]), "shape", "absent") for params in (before, after)]
        raise ValueError(f"these are parameters of two architectures: {len(differ)} differ, such as {differ[0]} "
                         f"({shapes[0]} before, {shapes[1]} after); compare models of one.")
    moved = {}
    for name, old in before.items():
        distance, norm = float(np.linalg.norm(after[name] - old)), float(np.linalg.norm(old))
        moved[name] = distance / norm if norm else float("inf") if distance else 0.0
    return dict(sorted(moved.items(), key=lambda item: (-item[1], item[0])))
