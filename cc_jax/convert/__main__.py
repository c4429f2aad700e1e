"""Converts weights, or makes those between two models.

python -m cc_jax.convert IN OUT --to huggingface
python -m cc_jax.convert --interpolate START END OUT --alpha 0.5 --to big_vision      # 0 is START, 1 is END

IN is a run's workdir, a big_vision .npz (or IMAGE.npz,TEXT.npz), a directory of Hugging Face's SiglipModel or of open_clip
with safetensors, or a released model's name. OUT is what big_vision (an .npz), `SiglipModel.from_pretrained(OUT)` or
`open_clip.create_model_and_transforms("local-dir:OUT")` opens; it appears whole or not at all.
"""
import dataclasses

from absl import app, flags, logging

from cc_jax import metrics
from cc_jax.convert import formats, open_clip, released, workdir
from cc_jax.convert.interpolate import interpolate
from cc_jax.convert.weights import DTYPES, Weights, WeightsError
from cc_jax.data.json_vocabulary import JsonVocabulary
from cc_jax.data.tokenizer import Tokenizer

TO = flags.DEFINE_enum("to", None, formats.FORMATS, "Whose loader is to open the result.", required=True)
DTYPE = flags.DEFINE_enum("dtype", "float32", [name for name in DTYPES if name != "float16"], "The numbers' type.")
STEP = flags.DEFINE_integer("step", None, "Which checkpoint of a workdir; the newest by default.")
CACHE = flags.DEFINE_string("cache", released.CACHE, "Where released models are kept.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "A tokenizer to lay beside the weights, not what IN has.")
INTERPOLATE = flags.DEFINE_bool("interpolate", False, "Write the weights between two models, START and END.")
ALPHA = flags.DEFINE_float("alpha", 0.5, "How far from START to END, 0 to 1.")
IGNORE_PADDING_MASK = flags.DEFINE_bool("ignore_padding_mask", False, "Convert a text tower that hides its padding, though "
                                        "the result will not: its texts get other embeddings than in training.")


def check_padding(weights: Weights, ignore: bool) -> None:
    """Raises WeightsError for a text tower that hides its padding, unless that is to be ignored."""
    if weights.masks_padding and not ignore:
        raise WeightsError(f"{weights.where} was trained with model.text.mask_padding=True. None of the other formats can "
                           "say so, and their towers attend to padding, so every text shorter than the row would get "
                           "another embedding than in training, silently. Train with mask_padding=False for a model "
                           "to be used there, or convert nonetheless with --ignore_padding_mask.")


def tokenizer_for(weights: Weights, path: str) -> dict[str, bytes]:
    """A vocabulary, under the peers' name for its kind, whose pieces the text tower has. Raises ValueError for any other."""
    tokenizer, vocab_size = Tokenizer.load(path), weights.complete().vocab_size
    if tokenizer.vocab_size > vocab_size:
        raise WeightsError(f"{path} has {tokenizer.vocab_size} pieces, {weights.where} embeddings for {vocab_size}; name "
                           "the tokenizer it was trained with.")
    return {JsonVocabulary.file_name if tokenizer.file_name == JsonVocabulary.file_name else "spiece.model":
            tokenizer.serialized}


def convert(sources: list[str], target: str) -> Weights:
    """Reads, checks, writes; returns what was written. Of two sources, what lies between."""
    if STEP.value is not None:
        read = [workdir.read(source, STEP.value) for source in sources]
    else:
        read = [formats.open_weights(source, CACHE.value) for source in sources]
    weights = interpolate(*read, ALPHA.value) if len(read) > 1 else read[0]
    if TOKENIZER.value:
        weights = dataclasses.replace(weights, tokenizer=tokenizer_for(weights, TOKENIZER.value))
    check_padding(weights, IGNORE_PADDING_MASK.value)
    formats.write(weights, target, TO.value, DTYPE.value)
    return weights


def main(argv: list[str]) -> None:
    names = "START, END and OUT" if INTERPOLATE.value else "IN and OUT"
    if len(argv) != (4 if INTERPOLATE.value else 3):
        raise app.UsageError(f"{len(argv) - 1} arguments; give {names}.")
    logging.set_verbosity(logging.WARNING)
    *sources, target = argv[1:]
    try:
        weights = convert(sources, target)
        sizes = weights.complete()
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    towers = open_clip.gelu_notes(open_clip.image_tower(sizes, weights.where)) if TO.value == "open_clip" else ()
    for note in dict.fromkeys(weights.notes + towers):
        metrics.say(note)
    if weights.masks_padding:
        metrics.say("the text tower hid its padding in training and no longer does: texts get other embeddings")
    if not weights.tokenizer:
        metrics.say(f"no tokenizer lies beside {weights.where}; lay the one it was trained with beside the result")
    elif TO.value == "big_vision":
        metrics.say(f"an npz has no place for the tokenizer of {weights.where}; keep it")
    metrics.say(f"{sizes.count():,} parameters of {weights.where} written to {target} for {TO.value}, {DTYPE.value}")


if __name__ == "__main__":
    app.run(main)
