"""Weights in big_vision's npz format: one array per parameter, named "params/img/..." or "img/..."."""
import zipfile

import jax
import numpy as np
from etils import epath

from cc_jax.config import ConfigError
from cc_jax.optim import parameter_names


def load(path: str, like: dict) -> dict:
    """The parameters in `path`, in the structure, types and sharding of `like` (blocks stacked where `like` scans).

    Every name and shape must match; otherwise ConfigError lists both sides. Nothing in the file can run code.
    """
    if not epath.Path(path).exists():
        raise ConfigError(f"config.model_init={path!r} does not exist; name a big_vision .npz, such as "
                          "webli_en_b16_224_63724782.npz from gs://big_vision/siglip.")
    try:
        with epath.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name.removeprefix("params/"): archive[name] for name in archive.files
                     if not name.startswith(("opt/", "extra/"))}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:  # arrays of objects, or no npz at all
        raise ConfigError(f"config.model_init={path!r} is not an npz file of plain arrays ({error}); name a big_vision "
                          "checkpoint.") from error
    found = restack(found, jax.tree.leaves(parameter_names(like)))
    names = parameter_names(like)
    wanted = dict(zip(jax.tree.leaves(names), (leaf.shape for leaf in jax.tree.leaves(like)), strict=True))
    shapes = {name: value.shape for name, value in found.items()}
    if shapes != wanted:
        differ = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
        lines = "\n".join(f"  {name}: {shapes.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the model"
                          for name in differ[:20])
        raise ConfigError(f"{path} does not fit the model: {len(differ)} of {len(wanted)} parameters differ.\n{lines}")
    return jax.tree.map(lambda name, leaf: jax.device_put(found[name].astype(leaf.dtype), leaf.sharding), names, like)


def restack(found: dict[str, np.ndarray], wanted: list[str]) -> dict[str, np.ndarray]:
    """Blocks stored one by one (`encoderblock_3/...`), stacked along a leading axis where the model scans over them."""
    stacked = {}
    for name in wanted:
        if "/encoderblock/" in name and name not in found:
            layers = []
            while (layer := name.replace("/encoderblock/", f"/encoderblock_{len(layers)}/")) in found:
                layers.append(found.pop(layer))
            if layers:
                stacked[name] = np.stack(layers)
    return found | stacked
