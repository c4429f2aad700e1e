"""A run's model opened for use: by the evaluators, the report, the notebooks."""
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from cc_jax import checkpoint, sharding
from cc_jax.config import Config, ConfigError
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.evals import embed
from cc_jax.models.text import TextTransformer
from cc_jax.models.two_towers import TwoTowers
from cc_jax.models.vit import ViT
from cc_jax.step import abstract_params


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint of a workdir, with its averaged parameters where the run kept some.

    `model.apply({"params": params}, image, text)` is plain SigLIP.
    """
    config: Config
    step: int
    model: TwoTowers
    params: dict
    tokenizer: Tokenizer
    mesh: Mesh

    @property
    def res(self) -> int:
        return self.config.data.res

    def embedder(self) -> embed.Embedder:
        """Embeds image files and texts as training's evaluations do."""
        return embed.make(self.model, self.tokenizer, self.res, self.mesh)(self.params)


def open_run(workdir: str, step: int | None = None) -> SavedRun:
    """Opens the checkpoint of `step` (the newest where None). Needs nothing but the workdir.

    Raises FileNotFoundError where there is no such run or step.
    """
    config = Config(checkpoint.read_config(workdir))
    model, mesh = make_model(config), sharding.make_mesh({"data": -1})
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
                        abstract_params(model, config.data.res))
    which = "params" if config.get("average", None) is None else "average"
    step, params = checkpoint.restore_params(workdir, like, step, which)
    return SavedRun(config, step, model, params, Tokenizer.load(f"{workdir}/tokenizer.model"), mesh)


def make_model(config: Config) -> TwoTowers:
    """The two towers of the config's `model` block."""
    block = config.model
    towers = {}
    for name, tower in (("image", ViT), ("text", TextTransformer)):
        known = {"variant", *tower.__dataclass_fields__} - {"parent", "name", "scan", "remat", "dtype"}
        towers[name] = block[name].options(known)
    rest = {"temperature_init", "bias_init", "scan", "remat", "dtype"} & set(block.keys())
    return TwoTowers(**towers, **{name: block[name] for name in rest})


def load_tokenizer(config: Config) -> Tokenizer:
    """The dataset's tokenizer, or the file that `data.tokenizer` names; its pieces must fit the text tower."""
    tokenizer = Tokenizer.load(config.data.get("tokenizer", None) or f"{config.data.dir}/tokenizer.model")
    if tokenizer.vocab_size > config.model.text.vocab_size:
        raise ConfigError(f"config.model.text.vocab_size={config.model.text.vocab_size}, but the tokenizer has "
                          f"{tokenizer.vocab_size} pieces; set it to at least that.")
    return tokenizer
