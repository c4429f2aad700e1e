"""Released SigLIP models by name: where they lie, what they hold; found in a local cache, or downloaded into it."""
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cc_jax.config import suggest
from cc_jax.convert import big_vision, hugging_face
from cc_jax.convert.weights import GEMMA_VOCABULARY, Sizes, Tower, Weights, WeightsError, require, shapes_of
from cc_jax.data.readers import files
from cc_jax.models.vit import VARIANTS

CACHE = "~/.cache/cc_jax"
BUCKET = "https://storage.googleapis.com/big_vision"       # gs://big_vision over https, which needs no account
HUB = "https://huggingface.co"
BLOCK_BYTES = 2**23
TOKENIZERS = {  # by the vocabulary's size; a model's Hugging Face directory has its own
    32_000: "https://storage.googleapis.com/t5-data/vocabs/cc_en.32000/sentencepiece.model",
    GEMMA_VOCABULARY: f"{BUCKET}/gemma_tokenizer.model",
}


@dataclass(frozen=True)
class Released:
    image: str          # variant of the image tower
    res: int
    text: str           # variant of the text tower
    length: int         # positions of the text tower
    vocab_size: int
    parameters: int
    file: str           # under gs://big_vision
    hub: str            # the same as a directory on Hugging Face

    @property
    def sizes(self) -> Sizes:
        variant, patch = self.image.split("/")
        image, text = Tower(*VARIANTS[variant]), Tower(*VARIANTS[self.text])
        return Sizes(image, text, int(patch), self.res, self.vocab_size, self.length, image.width)


def _siglip(image: str, res: int, text: str, parameters: int, file: str, hub: str, length: int = 64) -> Released:
    return Released(image, res, text, length, 32_000, parameters, f"siglip/webli_en_{file}.npz", f"google/siglip-{hub}")


def _siglip2(image: str, res: int, text: str, parameters: int, file: str, hub: str) -> Released:
    return Released(image, res, text, 64, GEMMA_VOCABULARY, parameters, f"siglip2/siglip2_{file}.npz",
                    f"google/siglip2-{hub}")


# Names are big_vision's own. So400m/14 at 384 sees 27 x 27 patches, all of them in 378 pixels: set data.res=378.
RELEASED = {
    "SigLIP B/16 224": _siglip("B/16", 224, "B", 203_155_970, "b16_224_63724782", "base-patch16-224"),
    "SigLIP B/16 256": _siglip("B/16", 256, "B", 203_202_050, "b16_256_60500360", "base-patch16-256"),
    "SigLIP B/16 384": _siglip("B/16", 384, "B", 203_447_810, "b16_384_68578854", "base-patch16-384"),
    "SigLIP B/16 512": _siglip("B/16", 512, "B", 203_791_874, "b16_512_68580893", "base-patch16-512"),
    "SigLIP L/16 256": _siglip("L/16", 256, "L", 652_150_786, "l16_256_60552751", "large-patch16-256"),
    "SigLIP L/16 384": _siglip("L/16", 384, "L", 652_478_466, "l16_384_63634585", "large-patch16-384"),
    "SigLIP So400m/14 224": _siglip("So400m/14", 224, "So400m", 877_360_306, "so400m_224_57633886", "so400m-patch14-224",
                                    length=16),
    "SigLIP So400m/14 384": _siglip("So400m/14", 384, "So400m", 877_960_498, "so400m_384_58765454", "so400m-patch14-384"),
    "SigLIP2 B/32 256": _siglip2("B/32", 256, "B", 376_856_066, "b32_256", "base-patch32-256"),
    "SigLIP2 B/16 224": _siglip2("B/16", 224, "B", 375_187_970, "b16_224", "base-patch16-224"),
    "SigLIP2 B/16 256": _siglip2("B/16", 256, "B", 375_234_050, "b16_256", "base-patch16-256"),
    "SigLIP2 B/16 384": _siglip2("B/16", 384, "B", 375_479_810, "b16_384", "base-patch16-384"),
    "SigLIP2 B/16 512": _siglip2("B/16", 512, "B", 375_823_874, "b16_512", "base-patch16-512"),
    "SigLIP2 L/16 256": _siglip2("L/16", 256, "L", 881_526_786, "l16_256", "large-patch16-256"),
    "SigLIP2 L/16 384": _siglip2("L/16", 384, "L", 881_854_466, "l16_384", "large-patch16-384"),
    "SigLIP2 L/16 512": _siglip2("L/16", 512, "L", 882_313_218, "l16_512", "large-patch16-512"),
    "SigLIP2 So400m/14 224": _siglip2("So400m/14", 224, "So400m", 1_135_463_602, "so400m14_224", "so400m-patch14-224"),
    "SigLIP2 So400m/14 384": _siglip2("So400m/14", 384, "So400m", 1_136_008_498, "so400m14_384", "so400m-patch14-384"),
    "SigLIP2 So400m/16 256": _siglip2("So400m/16", 256, "So400m", 1_135_670_962, "so400m16_256", "so400m-patch16-256"),
    "SigLIP2 So400m/16 384": _siglip2("So400m/16", 384, "So400m", 1_136_039_602, "so400m16_384", "so400m-patch16-384"),
    "SigLIP2 So400m/16 512": _siglip2("So400m/16", 512, "So400m", 1_136_555_698, "so400m16_512", "so400m-patch16-512"),
    "SigLIP2 g-opt/16 256": _siglip2("g-opt/16", 256, "So400m", 1_871_393_906, "g-opt16_256", "giant-opt-patch16-256"),
    "SigLIP2 g-opt/16 384": _siglip2("g-opt/16", 384, "So400m", 1_871_885_426, "g-opt16_384", "giant-opt-patch16-384"),
}


def find(name: str) -> str | None:
    """The table's spelling of a released model's name ("siglip 2 b/16 224" will do); None for what is a path.

    Raises WeightsError for a name that looks like one of a released model but is none.
    """
    plain = lambda text: re.sub(r"[\s_-]", "", text).lower()
    for known in RELEASED:
        if plain(known) == plain(name):
            return known
    if re.fullmatch(r"siglip\s?2?\s.*\s\d+", name.lower()):
        raise WeightsError(f"no released model is named {name!r}; {suggest(name, RELEASED)} {len(RELEASED)} are in "
                           "cc_jax/convert/released.py.")
    return None


def read(name: str, cache: str = CACHE) -> Weights:
    """The weights of a released model: from the directory or the file in the cache, else downloaded into it.

    Raises WeightsError where they are not there and can't be fetched, or are not what the table says.
    """
    place = local(name, cache)
    return check(name, hugging_face.read(str(place)) if place.is_dir() else big_vision.read([str(place)]))


def local(name: str, cache: str = CACHE) -> Path:
    """The directory or file of a released model in the cache, downloaded where it is not there. Raises as `read`."""
    model, folder = RELEASED[name], Path(cache).expanduser()
    hub, file = folder / Path(model.hub).name, folder / Path(model.file).name
    if (hub / hugging_face.CONFIG).exists():
        return hub
    if not file.exists():
        download(name, file)
    return file


def check(name: str, weights: Weights) -> Weights:
    """`weights`, which must be of the shapes, and so of the number of parameters, that the table has for `name`."""
    require(shapes_of(weights.params), RELEASED[name].sizes.shapes(), weights.where, name,
            " Delete it, and it will be fetched anew.")
    return weights


def download(name: str, file: Path) -> None:
    """Fetches a released model's npz; `file` appears when all of it is there and it is what the table says."""
    model = RELEASED[name]
    url = f"{BUCKET}/{model.file}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}.", dir=file.parent) as folder:
        partial = Path(folder) / file.name
        try:
            with files.open_stream(files.File(file.name, url)) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{name} is not in {file.parent}, and can't be downloaded here ({error}). On a machine with a network fetch "
                f"either\n  {url}\n  into {file}, or all files of\n  {HUB}/{model.hub}\n  into "
                f"{file.parent / Path(model.hub).name}/ (its tokenizer among them; alone it is at "
                f"{TOKENIZERS[model.vocab_size]}).") from error
        check(name, big_vision.read([str(partial)]))
        os.replace(partial, file)
