"""Weights in big_vision's npz format: one array per parameter, named "params/img/..." or "img/..."."""
from etils import epath

from cc_jax.convert import npz
from cc_jax.convert.weights import Lazy, Weights, WeightsError, reading_order, unrolled

NO_PARAMETERS = ("opt/", "extra/", "chrono")    # what else a training checkpoint holds
TOWERS = {"img": ("Transformer/", "embedding/", "MAPHead_0/"), "txt": ("Encoder_0/", "Embed_0/")}


def find(path: str) -> list[str]:
    """The files that `path` names: itself, or "IMAGE.npz,TEXT.npz" for towers apart. Empty where it names none."""
    parts = [path] if epath.Path(path).exists() else path.split(",")
    return parts if all(part.endswith(".npz") and epath.Path(part).exists() for part in parts) else []


def read(paths: list[str]) -> Weights:
    """The parameters in one or more files, blocks one by one even if the file has them stacked."""
    params = {}
    for path in paths:
        found = unrolled(with_towers(
            {name.removeprefix("params/"): value for name, value in npz.read(path, NO_PARAMETERS).items()}))
        twice = sorted(params.keys() & found.keys())
        if twice:
            raise WeightsError(f"{path} holds {len(twice)} parameters that another file has too, such as {twice[0]}; name "
                               "one file for each tower.")
        params |= found
    return Weights(params, ",".join(paths))


def with_towers(found: dict[str, Lazy]) -> dict[str, Lazy]:
    """Parameters of one tower apart ("Transformer/...") under the name that it has in the pair ("img/Transformer/...")."""
    for tower, marks in TOWERS.items():
        if any(name.startswith(marks) for name in found):
            return {f"{tower}/{name}": value for name, value in found.items()}
    return found


def write(weights: Weights, path: str) -> None:
    """A file that big_vision's `load_params` reads, blocks one by one."""
    npz.write(path, {f"params/{name}": weights.params[name] for name in reading_order(weights.params)})
