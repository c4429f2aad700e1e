"""From a prepared dataset to the batches of a run: order, decode, tokenise, phrase slots, batch.

The position is a plain step number. Step k holds the examples [k B, (k + 1) B) of one endless global order (all records
shuffled, then shuffled anew, ...), whatever the number of processes, and all that is random about an example comes from
(seed, its number): so the same seed gives the same batches, bit for bit, and resuming needs only k.
"""
import hashlib
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from cc_jax.config import ConfigError
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.data.transforms import decode, resize


def phrase_id(phrase: str) -> int:
    """An int32 that is equal for equal phrases, on every process without any exchange.

    A hash: two different phrases of a batch with U distinct ones share an id with probability U^2 / 2^33 (0.02 % at
    U = 1 000, 0.3 expected pairs at U = 50 000); such a pair counts as one phrase.
    """
    return int.from_bytes(hashlib.blake2b(phrase.encode(), digest_size=4).digest(), "little", signed=True)


def choose_phrases(phrases: list[str], caption: str, slots: int, rng: np.random.Generator) -> list[str]:
    """At most `slots` phrases, in their order: all, a random choice of more, or for none the caption itself."""
    if not phrases:
        return [caption]
    if len(phrases) <= slots:
        return phrases
    return [phrases[i] for i in np.sort(rng.choice(len(phrases), slots, replace=False))]


def phrase_slots(
    phrases: list[str], tokenizer: Tokenizer, slots: int, length: int,
) -> dict[str, np.ndarray]:
    """{"phrases": (slots, length) tokens, "phrase_id": (slots,), "phrase_mask": (slots,)}; empty slots hold ""."""
    filled = phrases + [""] * (slots - len(phrases))
    return {"phrases": tokenizer.encode(filled, length),
            "phrase_id": np.array([phrase_id(phrase) for phrase in filled], np.int32),
            "phrase_mask": np.arange(slots) < len(phrases)}


def make_example(
    tokenizer: Tokenizer, res: int, length: int, max_phrases: int, phrase_length: int, flip: bool, seed: int,
) -> Callable[[Mapping, int], dict[str, np.ndarray]]:
    """The function (record, its number in the global order) -> one example of a batch."""
    def example(record: Mapping, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        captions = [caption.decode() for caption in record["captions"]]
        chosen = int(rng.integers(len(captions)))
        phrases = [phrase.decode() for phrase, owner in zip(record["phrases"], record["phrase_caption"], strict=True)
                   if owner == chosen]
        image = resize(decode(record["image"]), res)
        if flip and rng.random() < 0.5:
            image = image[:, ::-1]
        phrases = choose_phrases(phrases, captions[chosen], max_phrases, rng)
        return {"image": np.ascontiguousarray(image), "caption": tokenizer.encode([captions[chosen]], length)[0],
                **phrase_slots(phrases, tokenizer, max_phrases, phrase_length)}
    return example


def global_number(local: int, batch_size: int, process: int, processes: int) -> int:
    """The place in the global order of a process's example number `local`: process p holds rows [p b, (p + 1) b) of
    every batch, b = batch_size / processes."""
    step, row = divmod(local, batch_size // processes)
    return step * batch_size + process * (batch_size // processes) + row


def training_batches(
    source, example: Callable[[Mapping, int], dict], batch_size: int, total_steps: int, seed: int, first_step: int = 0,
    process: int = 0, processes: int = 1, threads: int = 4,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows of the batches of steps first_step, ..., total_steps - 1.

    Args: source: random access to records, as `dataset.open_split`; batch_size: of the global batch; threads: that decode
    and tokenise. Close the iterator (`close()`) when leaving before its end.
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
    batches = grain.MapDataset.range(total_steps * local_batch).map(at).batch(local_batch).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * threads, 16)))
    iterator = iter(batches)
    grain.experimental.set_next_index(iterator, first_step)
    return iterator
