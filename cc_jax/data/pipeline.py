"""From a prepared dataset to the batches of a run: order, decode, tokenise, phrase slots, batch, phrase rows.

The position is a plain step number. Step k holds the examples [k B, (k + 1) B) of one endless global order (all records
shuffled, then shuffled anew, ...), whatever the number of processes, and all that is random about an example comes from
(seed, its number): so the same seed gives the same batches, bit for bit, and resuming needs only k.
"""
import hashlib
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from cc_jax.config import ConfigError
from cc_jax.data.packing import PhraseRows, lay_out
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.data.transforms import load, mirror
from cc_jax.models.text import EOS


def phrase_id(phrase: str) -> int:
    """An int32 that is equal for equal phrases, on every process without any exchange.

    A hash: two different phrases of a batch with U distinct ones share an id with probability U^2 / 2^33 (0.02 % at
    U = 1 000, 0.3 expected pairs at U = 50 000); such a pair counts as one phrase.
    """
    return int.from_bytes(hashlib.blake2b(phrase.encode(), digest_size=4).digest(), "little", signed=True)


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
    spans: bool = False, crop: float | None = None,
) -> Callable[[Mapping, int], dict[str, np.ndarray]]:
    """The function (record, its number in the global order) -> one example of a batch.

    A phrase comes as its tokens, "phrases" (max_phrases, phrase_length), or with `spans` as its place in the caption's
    row, "phrase_span" (max_phrases, 2): positions [first, end). A phrase that the row does not hold whole is then left out.
    A caption without a phrase stands as its own. `crop`: a random part of the image of at least that share of its area.
    """
    def example(record: Mapping, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        chosen = int(rng.integers(len(record["captions"])))
        caption = record["captions"][chosen].decode()
        image = load(record["image"], res, crop, rng)
        if flip and rng.random() < 0.5:
            image = mirror(image)
        of_caption = np.flatnonzero(np.asarray(record["phrase_caption"]) == chosen)
        phrases = [record["phrases"][i].decode() for i in of_caption]
        if spans:
            ends = [(record["phrase_start"][i], record["phrase_end"][i]) for i in of_caption]
            places = tokenizer.token_spans(caption, ends, length)
            held = np.flatnonzero(places[:, 1] > 0)
            phrases, places = [phrases[i] for i in held], places[held]
        row = tokenizer.encode([caption], length)[0]
        if phrases:
            kept = choose(len(phrases), max_phrases, rng)
            phrases = [phrases[i] for i in kept]
        else:
            kept, phrases, places = np.zeros(1, int), [caption], np.array([[0, max(1, np.sum(row[:-1] != EOS))]])
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


def training_batches(
    source, example: Callable[[Mapping, int], dict], batch_size: int, total_steps: int, seed: int, first_step: int = 0,
    process: int = 0, processes: int = 1, threads: int = 4, phrase_rows: PhraseRows | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows of the batches of steps first_step, ..., total_steps - 1.

    Args:
      source: random access to records, as `dataset.open_split`.
      batch_size: of the global batch.
      threads: that decode and tokenise.
      phrase_rows: the room for this process's distinct phrases, a row for each slot by default: see `packing.lay_out`.
    Close the iterator (`close()`) when leaving before its end.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size={batch_size} does not divide over {processes} processes; use a multiple.")
    if not len(source):
        raise ConfigError("the dataset's split has no records; prepare one that has.")
    order = grain.MapDataset.source(source).shuffle(seed=seed).repeat()

    def at(local: int) -> dict[str, np.ndarray]:
        number = global_number(local, batch_size, process, processes)
        return example(order[number], number)

    local_batch = batch_size // processes
    batches = grain.MapDataset.range(total_steps * local_batch).map(at).batch(local_batch).map(
        lambda batch: lay_out(batch, phrase_rows) if "phrases" in batch else batch)
    iterator = iter(batches.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * threads, 16))))
    grain.experimental.set_next_index(iterator, first_step)
    return iterator
