"""A run's model opened for use: by the evaluators, the report, the notebooks."""
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from cc_jax import checkpoint, sharding
from cc_jax.config import Config, ConfigError
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.evals import embed
from cc_jax.models import attention
from cc_jax.models.text import EOS, TextTransformer
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

    Raises FileNotFoundError where there is no such run or step, ConfigError where its tokenizer is damaged or another one.
    """
    config = Config(checkpoint.read_config(workdir))
    mesh = sharding.make_mesh({"data": -1})
    model = make_model(config, sharding.platform(mesh), "auto")
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
                        abstract_params(model, config.data.res))
    which = "params" if config.get("average", None) is None else "average"
    step, params = checkpoint.restore_params(workdir, like, step, which)
    return SavedRun(config, step, model, params, read_tokenizer(workdir), mesh)


def make_model(config: Config, platform: str, form: str | None = None) -> TwoTowers:
    """The two towers of the config's `model` block for devices of this platform; `form`, if given, is their attention's,
    whatever the config's."""
    block = config.model
    towers = {}
    for name, tower in (("image", ViT), ("text", TextTransformer)):
        of_both = {"parent", "name", "scan", "remat", "dtype", "constrain", "attention"}
        known = {"variant", *tower.__dataclass_fields__} - of_both
        towers[name] = block[name].options(known)
    rest = {"temperature_init", "bias_init", "scan", "remat", "dtype"} & set(block.keys())
    form = attention.choose(form or block.get("attention", "auto"), platform, block.get("dtype", "float32"))
    return TwoTowers(**towers, attention=form, **{name: block[name] for name in rest})


def read_tokenizer(path: str) -> Tokenizer:
    """`Tokenizer.load`, with one error for whatever is wrong."""
    try:
        return Tokenizer.load(path)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def load_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer of the dataset, or the one that `data.tokenizer` names; `data.pad_id` pads with another id.

    Raises ConfigError where it does not fit the text tower.
    """
    path, text = config.data.get("tokenizer", None) or config.data.dir, config.model.text
    pad_id = config.data.get("pad_id", None)
    tokenizer = read_tokenizer(path)
    if pad_id is not None:
        try:
            tokenizer = tokenizer.padded_with(pad_id)
        except ValueError as error:
            raise ConfigError(f"config.data.{error}") from error
    size = tokenizer.vocab_size
    if size > text.vocab_size:
        raise ConfigError(f"config.model.text.vocab_size={text.vocab_size}, but the tokenizer has {size} pieces; set it to "
                          "at least that.")
    if tokenizer.form.pad_id != EOS and text.get("mask_padding", False):
        raise ConfigError(f"config.model.text.mask_padding=True hides padding with {EOS}, but the tokenizer in {path} pads "
                          f"with {tokenizer.form.pad_id}, which released SigLIP 2 towers attend to; set config.data.pad_id="
                          f"{EOS} for a tower trained from scratch, or mask_padding=False for a released one.")
    return tokenizer
