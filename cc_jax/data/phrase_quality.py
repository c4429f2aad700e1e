"""How good found phrases are: scores against gold ones, by the form of the phrase, and the commonest errors; and how they
came about, for one caption. Behind `python -m cc_jax.data.phrases --evaluate FILE` and `--explain CAPTION`.
"""
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cc_jax.data import grammar
from cc_jax.data.backends import Sentence, load_backend
from cc_jax.data.phrases import count_determiners, judged_chunks, phrase_spans
from cc_jax.data.treebank import Span

# What a phrase can look like, each with an example; the first that fits counts.
FORMS = {
    "pronoun, number": "someone, others, two",
    "with of": "group of people",
    "coordinated": "black and white dog",
    "possessive": "man's hat",
    "number + noun": "two dogs",
    "proper name": "Boston street",
    "one noun": "dog",
    "adjective + noun": "red hat",
    "noun + noun": "tennis ball",
    "other": "no shirt",
}
# How a found phrase can be wrong, and how a gold one can be missed.
ERRORS = {
    "too long": "a gold phrase and more; '…' stands for the gold phrase",
    "too short": "a part of a gold phrase; '…' stands for what was found",
    "shifted": "a part of a gold phrase and more",
    "spurious": "shares no word with a gold phrase (gold sets leave out what has no box: not all of these are wrong)",
    "missed": "a gold phrase of which no word was found",
}


_PRONOUNS = grammar.PRONOUNS | {"one", "other", "others"}


class Scores(NamedTuple):
    """How predicted spans agree with gold ones; fractions of 1."""
    precision: float
    recall: float
    f1: float


class Tally(NamedTuple):
    """Phrases of one form: how many there are, and how many of them are on both sides."""
    gold: int
    gold_found: int
    predicted: int
    predicted_right: int


class Assessment(NamedTuple):
    scores: Scores
    forms: dict[str, Tally]                         # by the keys of FORMS
    errors: dict[str, Counter[str]]                 # by the keys of ERRORS: how often each was made
    examples: dict[tuple[str, str], str]            # (kind of error, error) -> the first phrase it was made in


def evaluate(rows: Iterable[dict], tagger: str = "shipped") -> Scores:
    """The scores of `assess`."""
    return assess(rows, tagger).scores


def assess(rows: Iterable[dict], tagger: str = "shipped") -> Assessment:
    """Compares found phrases with gold ones: exact matches, leading determiners left out on both sides.

    Args:
      rows: {"caption", "tokens", "phrases": [{"start", "end"}, ...]}; start and end count tokens.
      tagger: as in `phrases.located_phrases`.
    Gold sets that mark only phrases with a box make precision a lower bound.
    """
    counts, errors, examples = defaultdict(Counter), {kind: Counter() for kind in ERRORS}, {}
    for row in rows:
        caption, gold, found = row["caption"], gold_spans(row), set(phrase_spans(row["caption"], tagger))
        sentences = next(load_backend("shipped")([caption]))        # forms are told alike, whatever the tagger
        for name, spans in (("gold", gold), ("gold_found", gold & found), ("predicted", found),
                            ("predicted_right", gold & found)):
            counts[name].update(form(span, caption, sentences) for span in spans)
        for kind, error, example in find_errors(caption, sorted(gold), sorted(found)):
            errors[kind][error] += 1
            examples.setdefault((kind, error), example)
    right = counts["gold_found"].total()
    precision, recall = right / max(counts["predicted"].total(), 1), right / max(counts["gold"].total(), 1)
    forms = {name: Tally(*(counts[column][name] for column in Tally._fields)) for name in FORMS}
    return Assessment(Scores(precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)), forms, errors,
                      examples)


def gold_spans(row: dict) -> set[Span]:
    """Character spans of the gold phrases; a token that the caption spells otherwise gets a span nothing can match."""
    spans, position = [], 0
    for token in row["tokens"]:
        start = row["caption"].find(token, position)
        spans.append(Span(start, start + len(token)) if start >= 0 else Span(-1, -1))
        position = max(position, spans[-1].end)
    gold = set()
    for phrase in row["phrases"]:
        first = phrase["start"] + count_determiners(
            [token.lower() for token in row["tokens"][phrase["start"]:phrase["end"]]])
        if first < phrase["end"]:
            gold.add(Span(spans[first].start, spans[phrase["end"] - 1].end))
    return gold


def form(span: Span, caption: str, sentences: Sequence[Sentence]) -> str:
    """Which of FORMS the phrase at `span` has; `sentences`: the caption's analysis, for its tokens and tags."""
    words, tags, capital = [], [], False
    for sentence in sentences:
        for i, place in enumerate(sentence.spans):
            if span.start <= place.start and place.end <= span.end:
                words.append(sentence.words[i])
                tags.append(sentence.refined[i])
                capital |= i > 0 and caption[place.start].isupper()
    if not words:
        return "other"
    if all(word in _PRONOUNS or tag == "CD" for word, tag in zip(words, tags, strict=True)):
        return "pronoun, number"
    if "of" in words[1:]:
        return "with of"
    if not {"and", "or", "&", ","}.isdisjoint(words):
        return "coordinated"
    if "POS" in tags or "'s" in words:
        return "possessive"
    if tags[0] == "CD":
        return "number + noun"
    if capital and not caption.isupper():
        return "proper name"
    if len(words) == 1:
        return "one noun"
    if any(tag.startswith(("JJ", "COLOUR", "VB", "RB")) for tag in tags[:-1]):
        return "adjective + noun"
    return "noun + noun" if all(tag.startswith(("NN", "PART")) for tag in tags) else "other"


def find_errors(caption: str, gold: Sequence[Span], found: Sequence[Span]) -> Iterator[tuple[str, str, str]]:
    """(kind, error, the phrase it was made in) of each found phrase that is wrong, and each gold one without a trace."""
    text = lambda start, end: " ".join(caption[start:end].lower().split())
    overlapping = lambda span, others: [other for other in others if other.start < span.end and span.start < other.end]
    for span in found:
        if span in gold:
            continue
        others = overlapping(span, gold)
        inner, outer = (others[0], span) if others and _holds(span, others[0]) else (span, others[0] if others else span)
        if not others:
            yield "spurious", text(*span), ""
        elif not _holds(outer, inner):
            yield "shifted", f"{text(*span)} for {text(*outer)}", ""
        else:
            before, after = text(outer.start, inner.start), text(inner.end, outer.end)
            yield ("too short" if inner is span else "too long", f"{before} … {after}".strip(),
                   f"{before} [{text(*inner)}] {after}".strip())
    for span in gold:
        if not overlapping(span, found):
            yield "missed", text(*span), ""


def _holds(outer: Span, inner: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def show(assessment: Assessment, errors: int = 8) -> str:
    """An assessment as text: the scores, a table of forms, and the `errors` commonest of each kind."""
    lines = ["  ".join(f"{name} {value:.4f}" for name, value in assessment.scores._asdict().items()), "",
             f"{'form of the phrase':18}  {'example':20}  {'gold':>6}  {'recall':>6}  {'found':>6}  {'precision':>9}"]
    for name, tally in assessment.forms.items():
        lines.append(f"{name:18}  {FORMS[name]:20}  {tally.gold:6}  {_share(tally.gold_found, tally.gold):>6}  "
                     f"{tally.predicted:6}  {_share(tally.predicted_right, tally.predicted):>9}")
    for kind, counter in assessment.errors.items():
        lines += ["", f"{kind}: {counter.total()}; {ERRORS[kind]}"]
        for error, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:errors]:
            example = assessment.examples[kind, error]
            lines.append(f"{count:6}  {error}" + (f"    as in: {example}" if example else ""))
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def explain(caption: str, tagger: str = "shipped") -> str:
    """How the phrases of a caption come about: a line for each token, and what became of each chunk.

    Columns: the token; the tagger's tag; the refined tag where it differs; the number of the chunk; beside the chunk's
    first token the phrase, or why the chunk is none.
    """
    rows, number = [("token", "tag", "refined", "chunk", "phrase")], 0
    for sentence in next(load_backend(tagger)([caption])):
        notes, numbers = {}, {}
        for (start, end), (first, _, problem) in zip(sentence.chunks, judged_chunks(sentence), strict=True):
            number += 1
            numbers |= dict.fromkeys(range(start, end), str(number))
            notes[start] = f"- ({problem})" if problem else " ".join(sentence.words[first:end])
        for i, span in enumerate(sentence.spans):
            tag, refined = sentence.tags[i], sentence.refined[i]
            rows.append((caption[span.start:span.end], tag, refined if refined != tag else "", numbers.get(i, ""),
                         notes.get(i, "")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)
