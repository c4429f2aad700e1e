"""From a prepared dataset to the batches of a run: order, decode, tokenise, phrase slots, batch, phrase rows.

The position is a plain step number. Step k holds the examples [k B, (k + 1) B) of one endless global order (all records
shuffled, then shuffled anew, ...), whatever the number of processes, and all that is random about an example comes from
(seed, its number): so the same seed gives the same batches, bit for bit, and resuming needs only k.
"""
import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import grain
import numpy as np

from cc_jax.config import ConfigError, DatasetError
from cc_jax.data.packing import PhraseRows, lay_out
from cc_jax.data.phrase_noise import add_noise
from cc_jax.data.phrases import Located
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.data.transforms import ImageError, load, mirror
from cc_jax.data.treebank import Span
from cc_jax.models.text import EOS

NOISE = 1       # an example's stream of random numbers for errors in phrases: whatever their rates, all else is drawn alike
TRIES = 100     # records in a row that may have broken images

Weights = tuple[float, ...]


def phrase_id(phrase: str) -> int:
    """An int32 that is equal for equal phrases, on every process without any exchange.

    A hash: two different phrases of a batch with U distinct ones share an id with probability U^2 / 2^33 (0.02 % at
    U = 1 000, 0.3 expected pairs at U = 50 000); such a pair counts as one phrase.
    """
    return int.from_bytes(hashlib.blake2b(phrase.encode(), digest_size=4).digest(), "little", signed=True)


def caption_weights(captions: str | Sequence[float]) -> Weights | None:
    """How probable each of a record's captions is to stand for it in a step, by its position; None: all alike.

    The last weight is that of all captions from its position on, alike; of a record with fewer captions than weights
    those it has share what the others would have. So (0.3, 0.7) is the first caption in 30 % of steps, any other in 70 %.

    Args: captions: "random", "first", or weights such as (0.3, 0.7), or "0.3,0.7" as it comes from a command line.
    Raises: ConfigError for anything else.
    """
    if captions == "random":
        return None
    if captions == "first":
        return 1.0, 0.0
    try:
        weights = tuple(map(float, captions.strip("(), ").split(",") if isinstance(captions, str) else captions))
    except (TypeError, ValueError):
        weights = ()
    if not weights or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ConfigError(f"config.data.captions={captions!r}; use 'random', 'first', or weights by position, none below 0 "
                          "and not all 0, such as (0.3, 0.7).")
    return weights


def choose_caption(count: int, weights: Weights | None, rng: np.random.Generator) -> int:
    """Which of `count` captions."""
    if weights is None:
        return int(rng.integers(count))
    beyond = count - len(weights) + 1       # captions that share the last weight
    shares = np.array([*weights[:-1], *[weights[-1] / beyond] * beyond] if beyond > 0 else weights[:count])
    return int(rng.choice(count, p=shares / shares.sum() if shares.any() else None))


def draw_caption(record: Mapping, weights: Weights | None, rng: np.random.Generator) -> tuple[int, str]:
    """Which of the record's captions, and the caption. The first that is drawn of an example."""
    chosen = choose_caption(len(record["captions"]), weights, rng)
    return chosen, record["captions"][chosen].decode()


def phrases_of(record: Mapping, caption: int, placed: bool) -> Located:
    """The phrases of one caption; where each stands only if `placed`, else (0, 0): old datasets don't say."""
    of_caption = np.flatnonzero(np.asarray(record["phrase_caption"]) == caption)
    places = [(record["phrase_start"][i], record["phrase_end"][i]) if placed else (0, 0) for i in of_caption]
    return [(record["phrases"][i].decode(), Span(*map(int, place))) for i, place in zip(of_caption, places, strict=True)]


def choose(count: int, slots: int, rng: np.random.Generator) -> np.ndarray:
    """The indices of at most `slots` of `count` phrases, in their order: all, or a random choice of more."""
    return np.arange(count) if count <= slots else np.sort(rng.choice(count, slots, replace=False))


def phrase_slots(phrases: list[str], slots: int) -> dict[str, np.ndarray]:
    """{"phrase_id": (slots,), "phrase_mask": (slots,)}; an empty slot is that of ""."""
    filled = phrases + [""] * (slots - len(phrases))
    return {"phrase_id": np.array([phrase_id(phrase) for phrase in filled], np.int32),
            "phrase_mask": np.arange(slots) < len(phrases)}


def make_example(
    tokenizer: Tokenizer, res: int, length: int, max_phrases: int, phrase_length: int, flip: bool, seed: int,
    spans: bool = False, crop: float | None = None, noise: Mapping[str, float] | None = None,
    weights: Weights | None = None,
) -> Callable[[Mapping, int], dict[str, np.ndarray]]:
    """The function (record, its number in the global order) -> one example of a batch.

    A phrase comes as its tokens, "phrases" (max_phrases, phrase_length), or with `spans` as its place in the caption's
    row, "phrase_span" (max_phrases, 2): positions [first, end). A phrase that the row does not hold whole is then left out.
    A caption without a phrase stands as its own. `crop`: a random part of the image of at least that share of its area.
    `noise`: the rates of errors put into phrases, as of `phrase_noise.check_rates`. `weights`: as of `caption_weights`.
    """
    def example(record: Mapping, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        chosen, caption = draw_caption(record, weights, rng)
        image = load(record["image"], res, crop, rng)
        if flip and rng.random() < 0.5:
            image = mirror(image)
        located = phrases_of(record, chosen, spans or bool(noise))
        if noise:
            apart = np.random.default_rng(np.random.SeedSequence([seed, number], spawn_key=(NOISE,)))
            located = add_noise(caption, located, noise, apart)
        phrases = [phrase for phrase, _ in located]
        if spans:
            places = tokenizer.token_spans(caption, [span for _, span in located], length)
            held = np.flatnonzero(places[:, 1] > 0)
            phrases, places = [phrases[i] for i in held], places[held]
        row = tokenizer.encode([caption], length)[0]
        if phrases:
            kept = choose(len(phrases), max_phrases, rng)
            phrases = [phrases[i] for i in kept]
        else:
            kept, phrases, places = np.zeros(1, int), [caption], np.array([[0, max(1, np.argmax(row == EOS))]])
        slots = phrase_slots(phrases, max_phrases)
        if spans:
            empty = np.zeros((max_phrases - len(kept), 2), np.int32)
            slots["phrase_span"] = np.concatenate([places[kept], empty]).astype(np.int32)
        else:
            slots["phrases"] = tokenizer.encode(phrases + [""] * (max_phrases - len(phrases)), phrase_length)
        return {"image": image, "caption": row, **slots}
    return example


def global_number(local: int, batch_size: int, process: int, processes: int) -> int:
    """The place in the global order of a process's example number `local`: process p holds rows [p b, (p + 1) b) of
    every batch, b = batch_size / processes."""
    step, row = divmod(local, batch_size // processes)
    return step * batch_size + process * (batch_size // processes) + row


class BrokenImages:
    """Says on stderr which records' images can't be decoded, each record once: the first 10, then every 100th."""

    def __init__(self):
        self._lock, self._keys = Lock(), set()

    def tell(self, key: bytes, error: ImageError) -> None:
        with self._lock:
            if key in self._keys:
                return
            self._keys.add(key)
            count = len(self._keys)
            if count <= 10 or count % 100 == 0:
                print(f"the image of {key.decode()} can't be decoded, another record stands in ({count} so far): {error}",
                      file=sys.stderr, flush=True)


def global_order(records: int, seed: int) -> grain.MapDataset:
    """The endless order of all examples: which of the `records` each is made of."""
    return grain.MapDataset.range(records).shuffle(seed=seed).repeat()


def records_of_step(records: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The numbers of the records in the batch of update number `step`, from 1; others stand in where images are broken."""
    order = global_order(records, seed)
    return [int(order[number]) for number in range(batch_size * (step - 1), batch_size * step)]


def find(
    source: Sequence[Mapping], order: grain.MapDataset, example: Callable, number: int, batch_size: int,
    broken: BrokenImages,
) -> tuple[int, dict[str, np.ndarray]]:
    """The example of a number, and the record that it is made of: the one in the order, or that which stands in for it."""
    for place in range(number, number + TRIES * batch_size, batch_size):
        record = source[int(order[place])]
        try:
            return int(order[place]), example(record, number)
        except ImageError as error:
            broken.tell(record["key"], error)
            last = error
    raise DatasetError(f"the images of {TRIES} records in a row can't be decoded, the last is {record['key'].decode()}: "
                       f"{last} Prepare the dataset anew from sound images.")


def training_batches(
    source, example: Callable[[Mapping, int], dict], batch_size: int, total_steps: int, seed: int, first_step: int = 0,
    process: int = 0, processes: int = 1, threads: int = 4, phrase_rows: PhraseRows | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows of the batches of steps first_step, ..., total_steps - 1.

    For a record whose image can't be decoded the one at its row of the next batch stands in (in the same batch it would
    be there twice, as its own negative), else the one of the batch after, ...; all that is random stays the example's.

    Args:
      source: random access to records, as `dataset.open_split`.
      batch_size: of the global batch.
      threads: that decode and tokenise.
      phrase_rows: the room for this process's distinct phrases, a row for each slot by default: see `packing.lay_out`.
    Close the iterator (`close()`) when leaving before its end.
    Raises: ConfigError; from the iterator DatasetError, where no image of TRIES records in a row can be decoded.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size={batch_size} does not divide over {processes} processes; use a multiple.")
    if not len(source):
        raise ConfigError("the dataset's split has no records; prepare one that has.")
    order, broken = global_order(len(source), seed), BrokenImages()

    def at(local: int) -> dict[str, np.ndarray]:
        number = global_number(local, batch_size, process, processes)
        return find(source, order, example, number, batch_size, broken)[1]

    local_batch = batch_size // processes
    batches = grain.MapDataset.range(total_steps * local_batch).map(at).batch(local_batch).map(
        lambda batch: lay_out(batch, phrase_rows) if "phrases" in batch else batch)
    iterator = iter(batches.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * threads, 16))))
    grain.experimental.set_next_index(iterator, first_step)
    return iterator
