"""The scores that runs ended with, a table for each evaluation, and a table of what was run."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cc_jax import metrics
from cc_jax.objective import LOSSES
from cc_jax.report.runs import Run

CATEGORIES = ("phrase_binding", "swap_", "replace_", "add_", "", "macro")   # their order, by how they begin
COUNTS = ("items", "expected")
PAIRS = ("sugarcrepe", "aro", "valse")      # formats of compositional suites in which a caption has one negative
# What a table says below its title of the types whose scores do not explain themselves.
NOTES = {
    "compositional": "Items whose right text is preferred to every wrong one.",
    "pointing": "Phrases whose attention is strongest inside the box of what they name.",
    "retrieval": "Images, or captions, that find a match among the k most similar.",
}
DASH = "–"


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def tables(runs: Sequence[Run]) -> list[Table]:
    """The final scores, an evaluation a table, then what was run and how long it took."""
    return [*(scores(runs, name, block) for name, block in evaluations(runs).items()), summary(runs)]


def evaluations(runs: Sequence[Run]) -> dict[str, dict]:
    """{evaluation: its block} for the evaluations that any run's config has."""
    return {name: block for run in runs for name, block in run.config.get("evals", {}).items()}


def chance(block: Mapping) -> float | None:
    """What guessing scores, where the type and format of an evaluation tell."""
    return 0.5 if block.get("type") == "compositional" and block.get("format", PAIRS[0]) in PAIRS else None


def score_names(runs: Sequence[Run], evaluation: str, block: Mapping) -> list[str]:
    """The names of an evaluation's scores that any run has, counts left out, in the order of the rows."""
    keys = {key: None for run in runs for line in run.lines for key in line}
    names = [key.removeprefix(f"{evaluation}/") for key in keys
             if key.startswith(f"{evaluation}/") and key.rpartition("/")[2] not in COUNTS]
    return categories(names) if block.get("type") == "compositional" else names


def categories(scores: Sequence[str]) -> list[str]:
    """The names of compositional categories in their order."""
    rank = lambda name: max((len(start), i) for i, start in enumerate(CATEGORIES) if name.startswith(start))[1]
    return sorted(scores, key=lambda name: (rank(name), name))


def scores(runs: Sequence[Run], evaluation: str, block: Mapping) -> Table:
    """An evaluation's last scores in percent; at which step, and of how many items, where that differs among the runs."""
    names, note, guessed = score_names(runs, evaluation, block), NOTES.get(block.get("type"), ""), chance(block)
    unit = "recall in %" if block.get("type") == "retrieval" else f"% (chance: {100 * guessed:g} %)" if guessed else "%"
    key = lambda name: f"{evaluation}/{name}"
    rows = [(spelled(name), [percent(run.final(key(name))) for run in runs]) for name in names]
    counted = [items_of(run, evaluation) for run in runs]
    if len(known := set(filter(None, counted))) == 1:
        note = f"{note} {next(iter(known))} items.".strip()
    elif known:
        rows.append(("items", [count or DASH for count in counted]))
    steps = [max((step for name in names for step in run.curve(key(name))[0]), default=None) for run in runs]
    if len({step for step in steps if step is not None}) > 1:
        rows.append(("after updates", [DASH if step is None else metrics.grouped(step) for step in steps]))
    return Table(f"{spelled(evaluation).capitalize()}, {unit}", note, [run.name for run in runs],
                 rows or [("no scores", [DASH] * len(runs))])


def items_of(run: Run, evaluation: str) -> str | None:
    """"500", or "264 of 7 511" where not all were evaluated; None where the run does not say."""
    items, expected = (run.final(f"{evaluation}/{name}") for name in COUNTS)
    if items is None:
        return None
    whole = "" if expected in (None, items) else f" of {metrics.grouped(int(expected))}"
    return metrics.grouped(int(items)) + whole


def summary(runs: Sequence[Run]) -> Table:
    """What was run: the weights of the losses, how long it was, how long it took."""
    rows = [(f"{spelled(name)} weight", [f"{run.config.get('loss', {}).get(name, 0):g}" for run in runs])
            for name in LOSSES]
    times = [run.seconds() for run in runs]
    missing = [max(0, (run.planned or run.step) - run.step) for run in runs]
    rows += [
        ("batch size", [str(run.config.get("batch_size", DASH)) for run in runs]),
        ("updates", [metrics.grouped(run.step) + (f" of {metrics.grouped(run.step + more)}" if more else "")
                     for run, more in zip(runs, missing, strict=True)]),
        ("time per update", [DASH if step is None else f"{step:.3g} s" for step, _ in times]),
        ("training time", [DASH if total is None else metrics.duration(total) for _, total in times])]
    if any(missing):
        rows.append(("time still needed", [DASH if not more or step is None else metrics.duration(more * step)
                                           for more, (step, _) in zip(missing, times, strict=True)]))
    return Table("Runs", "Times leave out evaluations; the training time includes compilation.",
                 [run.name for run in runs], rows)


def spelled(name: str) -> str:
    """"image_to_text@1" -> "image to text @1"."""
    return name.replace("_", " ").replace("@", " @").replace("/", ", ")


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"
