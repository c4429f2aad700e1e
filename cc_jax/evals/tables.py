"""What an evaluation found, for reading: as Markdown, and as JSON for programs."""
from collections.abc import Mapping, Sequence
from typing import Any

from cc_jax.evals.compare import Difference, Interval, Row
from cc_jax.evals.result import Result
from cc_jax.progress import grouped

HOW = ("Scores in percent with 95 % intervals, of a bootstrap over images. Differences are to {first}, on the same items: "
       "gained and lost items, p of McNemar's exact test. Those that are not certain (the interval holds 0, or p >= 5 % "
       "after Holm's correction over the suite) are within noise.")


def percent(interval: Interval) -> str:
    """"61.2 (58.9 to 63.4)"."""
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def difference(of: Difference) -> str:
    """"+1.2 (-0.1 to +2.5), 30 gained, 21 lost, p 0.26: within noise"."""
    bounds = f"{100 * of.value:+.1f} ({100 * of.low:+.1f} to {100 * of.high:+.1f})"
    counted = "" if of.p is None else f", {of.gained} gained, {of.lost} lost, p {of.p:.2g}"
    return bounds + counted + ("" if of.certain else ": within noise")


def coverage(result: Result) -> str:
    """"7 511 of 7 511 items": a suite never shrinks unseen."""
    return f"{grouped(result.items)} of {grouped(result.expected)} items"


def columns(rows: Sequence[Row]) -> list[str]:
    """The head of a suite's table, as `cells` fills it."""
    names = list(rows[0].scores)
    return ["items", "chance", *names, *(f"{name} - {names[0]}" for name in names[1:])]


def cells(row: Row) -> list[str]:
    chance = "" if row.chance is None else f"{100 * row.chance:.3g}"
    return [grouped(row.items), chance, *map(percent, row.scores.values()), *map(difference, row.differences.values())]


def markdown(suites: Mapping[str, tuple[Sequence[Row], Result]]) -> str:
    """Every suite's table: its rows, and a result that tells how much of it was evaluated."""
    parts = []
    for name, (rows, result) in suites.items():
        head = columns(rows)
        lines = [f"## {name}: {coverage(result)}", "", "| score | " + " | ".join(head) + " |",
                 "| --- |" + " ---: |" * len(head)]
        parts.append("\n".join(lines + [f"| {row.name} | " + " | ".join(cells(row)) + " |" for row in rows]))
    first = next(iter(suites.values()))[0][0]
    return "\n\n".join([*parts, HOW.format(first=next(iter(first.scores)))]) + "\n"


def to_json(models: Mapping[str, str], suites: Mapping[str, tuple[Sequence[Row], Result]]) -> dict[str, Any]:
    """All numbers; `models` says what each name stands for."""
    as_dict = lambda row: {"items": row.items, "chance": row.chance, "scores": {k: vars(v) for k, v in row.scores.items()},
                           "differences": {k: vars(v) for k, v in row.differences.items()}}
    return {"models": dict(models), "suites": {
        name: {"items": result.items, "expected": result.expected, "scores": {row.name: as_dict(row) for row in rows}}
        for name, (rows, result) in suites.items()}}
