"""How tensors of the PyTorch peers lie, against big_vision's parameters: transposed, heads flattened, q, k, v in one."""
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cc_jax.convert.weights import Lazy, Sizes

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """`out` lays a parameter out as the peer has it; `back` undoes it, given the parameter's own shape."""
    out: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


SAME = Layout(lambda x: x, lambda y, shape: y.reshape(shape))
DENSE = Layout(lambda x: x.T, lambda y, _: y.T)                                                 # (in, out) -> (out, in)
TO_HEADS = Layout(lambda x: x.reshape(len(x), -1).T, lambda y, shape: y.T.reshape(shape))       # (D, H, d) -> (H*d, D)
FROM_HEADS = Layout(lambda x: x.reshape(-1, x.shape[-1]).T, lambda y, shape: y.T.reshape(shape))    # (H, d, D) -> (D, H*d)
FLAT = Layout(lambda x: x.reshape(-1), lambda y, shape: y.reshape(shape))                       # (H, d) -> (H*d,)
PATCHES = Layout(lambda x: x.transpose(3, 2, 0, 1), lambda y, _: y.transpose(2, 3, 1, 0))      # (p, p, C, D) -> (D, C, p, p)
ROWS = Layout(lambda x: x[0], lambda y, shape: y.reshape(shape))                                # (1, N, D) -> (N, D)
SCALAR = Layout(lambda x: x.reshape(()), lambda y, shape: y.reshape(shape))                     # (1,) -> ()


@dataclass(frozen=True)
class Entry:
    """One tensor of a peer: these parameters in this layout, one after the other along its first axis."""
    theirs: str
    ours: tuple[str, ...]
    layout: Layout


def entry(theirs: str, ours: str, layout: Layout = SAME) -> Entry:
    return Entry(theirs, (ours,), layout)


def norm(theirs: str, ours: str) -> list[Entry]:
    return [entry(f"{theirs}.weight", f"{ours}/scale"), entry(f"{theirs}.bias", f"{ours}/bias")]


def dense(theirs: str, ours: str) -> list[Entry]:
    return [entry(f"{theirs}.weight", f"{ours}/kernel", DENSE), entry(f"{theirs}.bias", f"{ours}/bias")]


def heads(weight: str, bias: str, ours: str, parts: Iterable[str]) -> list[Entry]:
    """The projections `parts` ("query", "key", "value") of the attention `ours`, in one tensor each."""
    return [Entry(weight, tuple(f"{ours}/{part}/kernel" for part in parts), TO_HEADS),
            Entry(bias, tuple(f"{ours}/{part}/bias" for part in parts), FLAT)]


def out(theirs: str, ours: str) -> list[Entry]:
    """The projection after the attention `ours`."""
    return [entry(f"{theirs}.weight", f"{ours}/out/kernel", FROM_HEADS), entry(f"{theirs}.bias", f"{ours}/out/bias")]


def their_shapes(entries: Iterable[Entry], sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the peer's tensors."""
    shapes = sizes.shapes()
    return {item.theirs: _shape(item, shapes) for item in entries}


def to_peer(entries: Iterable[Entry], params: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """The peer's tensors, made of the parameters when they are read."""
    shapes = {name: lazy.shape for name, lazy in params.items()}
    return {item.theirs: Lazy(_shape(item, shapes), params[item.ours[0]].dtype, lambda item=item: _pack(item, params))
            for item in entries}


def from_peer(entries: Iterable[Entry], tensors: Mapping[str, Lazy], sizes: Sizes) -> dict[str, Lazy]:
    """The parameters, taken from the peer's tensors when they are read. The tensors have `their_shapes`."""
    params, shapes = {}, sizes.shapes()
    for item in entries:
        tensor = tensors[item.theirs]
        for i, name in enumerate(item.ours):
            params[name] = Lazy(shapes[name], tensor.dtype,
                                lambda item=item, i=i, tensor=tensor, name=name: _unpack(item, i, tensor, shapes[name]))
    return params


def _shape(item: Entry, shapes: Shapes) -> tuple[int, ...]:
    [shape] = {item.layout.out(np.broadcast_to(np.float32(0), shapes[name])).shape for name in item.ours}
    return (shape[0] * len(item.ours), *shape[1:]) if len(item.ours) > 1 else shape


def _pack(item: Entry, params: Mapping[str, Lazy]) -> np.ndarray:
    parts = [item.layout.out(params[name].read()) for name in item.ours]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _unpack(item: Entry, i: int, tensor: Lazy, shape: tuple[int, ...]) -> np.ndarray:
    array = tensor.read()
    rows = len(array) // len(item.ours) if array.ndim else 0
    return item.layout.back(array[i * rows:(i + 1) * rows] if len(item.ours) > 1 else array, shape)
