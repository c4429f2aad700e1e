"""What a step minimises: the losses of a batch, from the towers' embeddings, and how they are weighed."""
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cc_jax.concepts import AttentionCosine, check_normalised
from cc_jax.config import Config, ConfigError, steps
from cc_jax.losses import sigmoid_loss
from cc_jax.models.text import PackedText
from cc_jax.models.two_towers import TwoTowers
from cc_jax.pairs import ALONE, NORMALISERS, DotProduct, Exchange, Held, Texts, pair_loss
from cc_jax.sharding import BATCH

LOSSES = ("siglip", "phrase", "concept_attention", "distill")
EMBEDDINGS = ("tower", "span")


@dataclass(frozen=True)
class Objective:
    """L = siglip * L_siglip + phrase * L_npc + concept_attention * L_xac + distill * L_distill, and how each is computed.

    L_distill = (1/B) sum_i (2 - <v_i, v'_i> - <c_i, c'_i>), v' and c' being the embeddings by the weights that the run
    started from: it holds the towers near what they could do, such as to tell ImageNet's classes apart.

    Attributes:
      ramp: over so many first steps the weights of the two concept losses rise linearly from 0.
      normaliser: of the concept losses, as in `pairs.pair_loss`.
      temperature: of the concept attention.
      embedding: of a phrase: "tower" encodes it by itself, "span" pools its tokens' states in the caption's pass.
      exchange, and max_hops for L_xac only: as in `pairs.Exchange`. Dot products cost too little to leave any out.
      checked: the debug mode of `concepts.check_normalised`.
    """
    siglip: float = 1.0
    phrase: float = 0.0
    concept_attention: float = 0.0
    distill: float = 0.0
    ramp: int = 0
    normaliser: str = "texts"
    temperature: float = 1.0
    embedding: str = "tower"
    exchange: Exchange = ALONE
    max_hops: int | None = None
    checked: bool = False

    @property
    def has_concepts(self) -> bool:
        """Whether phrases are encoded at all: plain SigLIP never does."""
        return self.phrase > 0 or self.concept_attention > 0

    def weights(self, step: Int[Array, ""]) -> dict[str, Float[Array, ""] | float]:
        """The weight of each loss that has one, at a step."""
        rise = jnp.minimum(1.0, (step + 1) / self.ramp) if self.ramp else 1.0
        given = {"siglip": self.siglip, "phrase": self.phrase * rise, "concept_attention": self.concept_attention * rise,
                 "distill": self.distill}
        return {name: value for name, value in given.items() if name == "siglip" or getattr(self, name) > 0}


def pools_spans(config: Config) -> bool:
    """Whether a phrase's embedding is pooled in its caption's pass (`concepts.embedding="span"`)."""
    return config.get("concepts", {}).get("embedding", EMBEDDINGS[0]) == "span"


def read(config: Config, mesh: Mesh, total_steps: int) -> Objective:
    """The objective by the config's `loss` and `concepts` blocks. Raises ConfigError."""
    loss, concepts = config.loss, config.get("concepts", {})
    for name, known in (("embedding", EMBEDDINGS), ("normaliser", NORMALISERS)):
        if (value := concepts.get(name, known[0])) not in known:
            raise ConfigError(f"config.concepts.{name}={value!r} is not known; use one of {', '.join(known)}.")
    ramp, max_hops, temperature = (concepts.get(name, default) for name, default in (
        ("ramp", None), ("max_hops", None), ("temperature", 1.0)))
    mesh = mesh if mesh.size > 1 else None
    try:
        exchange = Exchange(mesh, concepts.get("exchange", "ring"), axes=BATCH)
        Exchange(mesh, max_hops=max_hops), AttentionCosine(temperature)  # raise where they can't be
    except ValueError as error:
        raise ConfigError(f"config.concepts: {error}") from error
    return Objective(
        siglip=loss.get("siglip", 1.0), phrase=loss.get("phrase", 0.0),
        concept_attention=loss.get("concept_attention", 0.0), distill=loss.get("distill", 0.0),
        ramp=steps(ramp, total_steps) if ramp else 0,
        normaliser=concepts.get("normaliser", "texts"), temperature=temperature,
        embedding=concepts.get("embedding", EMBEDDINGS[0]), exchange=exchange, max_hops=max_hops,
        checked=config.get("checked", False))


class Encoded(NamedTuple):
    """What the losses need of the towers; None where no loss with a weight needs it."""
    image: Float[Array, "B D"]
    caption: Float[Array, "B D"]
    tokens: Float[Array, "B K D"] | None
    phrases: Float[Array, "R S D"] | None  # row by row of the batch: R rows of S phrases, or B images with S slots
    start_image: Float[Array, "B D"] | None = None      # by the weights that the run started from
    start_caption: Float[Array, "B D"] | None = None


def encode(
    model: TwoTowers, params: Mapping, batch: Mapping[str, Array], objective: Objective, start: Mapping | None = None,
) -> Encoded:
    """The towers on a batch of the pipeline, and those of the `start` where a loss compares with it.

    Concept tokens come in the model's compute type.
    """
    want_tokens = objective.concept_attention > 0
    spans = batch["phrase_span"] if objective.has_concepts and objective.embedding == "span" else None
    image, caption, out = model.apply({"params": params}, pixels(batch["image"]), batch["caption"],
                                      want_tokens=want_tokens, spans=spans)
    phrases = out.get("span_embeddings")
    if objective.has_concepts and objective.embedding == "tower":
        rows = batch["phrases"]
        if "phrase_segment" in batch:
            rows = PackedText(rows, batch["phrase_segment"], batch["phrase_position"], batch["phrase_end"])
        _, phrases, _ = model.apply({"params": params}, None, rows)
    if phrases is not None:
        rows = batch["phrase_mask"] if spans is not None else batch["column_id"]
        phrases = phrases.reshape(*rows.shape, -1)
    tokens = out["concept_tokens"].astype(model.dtype) if want_tokens else None
    if not objective.distill:
        return Encoded(image, caption, tokens, phrases)
    before = model.apply({"params": start}, pixels(batch["image"]), batch["caption"])[:2]
    return Encoded(image, caption, tokens, phrases, *map(lax.stop_gradient, before))


def losses(
    encoded: Encoded, batch: Mapping[str, Array], scale: Float[Array, ""], bias: Float[Array, ""], objective: Objective,
    key: PRNGKeyArray,
) -> dict[str, Float[Array, ""]]:
    """Each loss that has a weight, by name; `key` draws the hops where some are left out."""
    exchange = objective.exchange
    if objective.checked:
        check_normalised(**{name: value for name, value in encoded._asdict().items() if value is not None})
    values = {"siglip": sigmoid_loss(encoded.image, encoded.caption, scale, bias, exchange=exchange)}
    if objective.distill:
        cosine = lambda a, b: jnp.sum(a * b, axis=-1)
        values["distill"] = jnp.mean(2 - cosine(encoded.image, encoded.start_image)
                                     - cosine(encoded.caption, encoded.start_caption))
    if objective.has_concepts:
        held = Held(batch["phrase_id"], batch["phrase_mask"])
        columns = ("column_id", "column_weight") if objective.embedding == "tower" else ("phrase_id", "phrase_mask")
        texts = Texts(encoded.phrases.reshape(-1, encoded.phrases.shape[-1]), *(batch[name].ravel() for name in columns))
        texts = texts._replace(weight=texts.weight.astype(jnp.float32))
        if objective.phrase > 0:
            values["phrase"] = pair_loss(DotProduct(), encoded.image, held, texts, scale, bias, exchange=exchange,
                                         normaliser=objective.normaliser)
        if objective.concept_attention > 0:
            texts = texts._replace(embedding=texts.embedding.astype(encoded.tokens.dtype))
            values["concept_attention"] = pair_loss(
                AttentionCosine(objective.temperature), encoded.tokens, held, texts, scale, bias,
                exchange=replace(exchange, max_hops=objective.max_hops), normaliser=objective.normaliser, key=key)
    return values


def pixels(image: jax.Array) -> jax.Array:
    """uint8 (B, H, W, 3) -> float32 in [-1, 1]. On the device: a quarter of the bytes travel."""
    return image.astype(jnp.float32) / 127.5 - 1.0
