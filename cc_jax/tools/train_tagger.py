"""Trains the part-of-speech tagger that ships with the package, from captions tagged by NLTK's own tagger.

    python -m cc_jax.tools.train_tagger --captions flickr.txt,coco.txt,cc3m.txt --exclude gold.jsonl --out tagger/

The student sees lower-case captions and learns the tags the teacher gave with the case there. Sentences about drawn
shapes, tagged by rule, are mixed in, because the teacher knows too little of "a dotted cross". Weights become small
integers (the best tag depends on no scale) and the smallest go, until the files fit. The same flags and files give the
same weights, byte for byte. Needs NLTK's averaged_perceptron_tagger_eng.
"""
import json
import logging
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import app, flags
from nltk.tag.perceptron import PerceptronTagger

from cc_jax.data import perceptron, treebank

Tagged = list[tuple[str, str]]      # (word, Penn tag) of one sentence

COLOURS = "red green blue yellow orange purple pink black white brown cyan gray grey magenta".split()
SIZES = "large small big tiny huge little medium".split()
TEXTURES = "striped dotted plain checkered spotted solid hollow filled shaded outlined".split()
SHAPES = ("circle square triangle star cross ring heart diamond hexagon pentagon octagon plus moon crescent arrow "
          "rectangle oval ellipse disc cube sphere").split()
RELATIONS = (
    "above/IN", "below/IN", "beside/IN", "under/IN", "near/IN", "behind/IN", "over/IN", "beneath/IN", "with/IN",
    "and/CC", ",/,", "next/JJ to/TO", "to/TO the/DT left/NN of/IN", "to/TO the/DT right/NN of/IN", "left/NN of/IN",
    "right/NN of/IN", "on/IN the/DT left/NN of/IN", "on/IN the/DT right/NN of/IN", "on/IN top/NN of/IN",
    "in/IN front/NN of/IN", "touching/VBG", "is/VBZ above/IN", "is/VBZ below/IN", "sits/VBZ above/IN",
    "lies/VBZ below/IN", "stands/VBZ next/JJ to/TO", "is/VBZ to/TO the/DT left/NN of/IN", "which/WDT is/VBZ near/IN",
)
OPENINGS = ("", "", "", "there/EX is/VBZ", "there/EX are/VBP", "a/DT picture/NN of/IN", "an/DT image/NN with/IN",
            "on/IN the/DT left/NN ,/,", "at/IN the/DT top/NN is/VBZ", "we/PRP see/VBP", "the/DT scene/NN shows/VBZ")
CLOSINGS = ("", "./.", "./.", "on/IN the/DT left/NN ./.", "at/IN the/DT bottom/NN right/NN",
            "in/IN the/DT corner/NN ./.")


def scene_sentences(count: int, seed: int) -> Iterator[Tagged]:
    """Sentences about drawn scenes of two or three objects, tagged by rule."""
    draw = random.Random(seed)
    for _ in range(count):
        parts = [draw.choice(OPENINGS), _scene_object(draw)]
        for _ in range(draw.randint(1, 2)):
            parts += [draw.choice(RELATIONS), _scene_object(draw)]
        parts.append(draw.choice(CLOSINGS))
        yield [tuple(pair.rsplit("/", 1)) for pair in " ".join(parts).split()]


def _scene_object(draw: random.Random) -> str:
    number, tag = draw.choice((("a", "DT"), ("a", "DT"), ("the", "DT"), ("one", "CD"), ("two", "CD"), ("three", "CD")))
    kinds = [kind for kind in (SIZES, TEXTURES, COLOURS) if draw.random() < 0.6]
    draw.shuffle(kinds)
    adjectives = [f"{draw.choice(kind)}/JJ" for kind in kinds]
    shape = draw.choice(SHAPES)
    noun = f"{_plural(shape)}/NNS" if tag == "CD" and number != "one" else f"{shape}/NN"
    return " ".join([f"{number}/{tag}", *adjectives, noun])


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def read_captions(files: Iterable[Path], exclude: Iterable[str]) -> list[str]:
    """The distinct captions of text files, one a line, in order, without those in `exclude` (whatever their case)."""
    left_out = {_key(caption) for caption in exclude}
    lines = (line.strip() for file in files for line in file.read_text("utf-8").splitlines())
    captions = {_key(line): line for line in lines if line}
    return [caption for key, caption in captions.items() if key not in left_out]


def _key(caption: str) -> str:
    return " ".join(caption.casefold().split())


def tag_captions(captions: Iterable[str], teacher: PerceptronTagger) -> Iterator[Tagged]:
    """Lower-case sentences with the teacher's tags."""
    for caption in captions:
        for tokens in treebank.tokenise(caption):
            words = [word for word, _ in tokens]
            # A capital at the start of a sentence makes the teacher see names: "Young/NNP girl".
            tags = teacher.tag([words[0].lower(), *words[1:]] if words else [])
            if tags:
                yield [(word.lower(), tag) for word, (_, tag) in zip(words, tags, strict=True)]


def train(sentences: list[Tagged], iterations: int, seed: int) -> PerceptronTagger:
    """A tagger trained on tagged sentences; the same arguments give the same weights."""
    tagger = PerceptronTagger(load=False)
    random.seed(seed)               # NLTK shuffles the sentences with the global generator
    tagger.train(sentences, nr_iter=iterations)
    return tagger


def compress(tagger: PerceptronTagger, max_bytes: int, scale: int = 10) -> dict[str, str]:
    """The files of a tagger as compact JSON, its smallest weights dropped until they have `max_bytes` in all.

    Args:
      scale: weights are multiplied by this and rounded to integers.
    Returns: {"weights" | "tagdict" | "classes": text}.
    Raises: ValueError where even no weights at all would be too large.
    """
    texts = {"tagdict": _compact(tagger.tagdict), "classes": _compact(sorted(tagger.classes))}
    left = max_bytes - sum(map(len, texts.values()))
    for smallest in range(1, 1000):
        weights = {}
        for feature, by_tag in tagger.model.weights.items():
            kept = {tag: round(weight * scale) for tag, weight in by_tag.items() if abs(weight * scale) >= smallest}
            if kept:
                weights[feature] = kept
        texts["weights"] = _compact(weights)
        if len(texts["weights"]) <= left:
            logging.info("%d features with weights of at least %g", len(weights), smallest / scale)
            return texts
    raise ValueError(f"max_bytes={max_bytes} is too small for a tag dictionary of {len(tagger.tagdict)} words; "
                     f"allow at least {max_bytes - left} and room for weights.")


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))     # ASCII, so characters are bytes


def main(_) -> None:
    args = flags.FLAGS
    gold = [json.loads(line)["caption"] for file in args.exclude for line in open(file, encoding="utf-8")]
    captions = read_captions(map(Path, args.captions), gold)
    random.Random(args.seed).shuffle(captions)
    sentences = list(tag_captions(captions[:args.max_captions], perceptron.load_tagger("nltk")))
    sentences += scene_sentences(args.scenes, args.seed)
    logging.info("%d sentences, %d tokens", len(sentences), sum(map(len, sentences)))
    texts = compress(train(sentences, args.iterations, args.seed), args.max_bytes)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for part, text in texts.items():
        (out / perceptron.TAGGER_FILES[part]).write_text(text, "utf-8")
    print(f"{sum(map(len, texts.values()))} bytes in {out}")


if __name__ == "__main__":
    flags.DEFINE_list("captions", None, "Text files with one caption a line.", required=True)
    flags.DEFINE_list("exclude", [], "JSON lines whose field 'caption' is never trained on (the evaluation set).")
    flags.DEFINE_string("out", None, "Folder the three JSON files are written to.", required=True)
    flags.DEFINE_integer("max_captions", 60_000, "How many captions to train on, chosen at random.", lower_bound=1)
    flags.DEFINE_integer("scenes", 4_000, "How many sentences about drawn shapes to mix in.", lower_bound=0)
    flags.DEFINE_integer("iterations", 5, "Passes over the sentences.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the choice and order of sentences.")
    flags.DEFINE_integer("max_bytes", 800_000, "Size of the three files together.", lower_bound=1)
    app.run(main)
