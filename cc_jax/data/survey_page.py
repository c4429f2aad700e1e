"""The page that shows a survey of a dataset: counts, rejects, lengths, the commonest phrases, and a few records.

It stands alone (styles and pictures are inside it, scripts there are none), fits a phone, and escapes all that is data.
"""
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

from cc_jax.data import dataset
from cc_jax.data.survey import Sample, Size, Survey
from cc_jax.page import document, table, text
from cc_jax.progress import grouped

SAMPLES, COMMONEST, EXAMPLES = 24, 50, 3     # records, phrases, and rejects of each reason that are shown
MAX_DETAIL = 200                # characters of a reject's key, and of its detail
BARS = 25                       # of a histogram, at most
KINDS = {"rejected": "record", "rejected_captions": "caption", "rejected_phrases": "phrase"}    # of rejects, in the counts
DASH = "–"

CSS = """
:root { --bar: #0072b2; --mark: #d3e9f8; --twice: #9fd0f0; --box: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --bar: #5cb8f0; --mark: #1d4663; --twice: #2f6d98; --box: #1e2328; } }
body { overflow-wrap: anywhere; } h1, h2, h3, .facts, table { overflow-wrap: break-word; }
.facts { display: grid; gap: 8px; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); margin: 1em 0; }
.facts div { background: var(--box); border-radius: 6px; padding: 8px 12px; color: var(--faint); }
.facts b { display: block; font-size: 1.35em; font-weight: 600; color: var(--ink); }
.histograms { display: grid; gap: 8px 40px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.bars { display: flex; align-items: end; height: 120px; border-bottom: 1px solid var(--line); }
.bars i { flex: 1; background: var(--bar); margin: 0 1px; border-radius: 2px 2px 0 0; }
.ticks { display: flex; font-size: .75em; color: var(--faint); } .ticks span { flex: 1; width: 0; text-align: center;
  white-space: nowrap; display: flex; justify-content: center; }
.phrases { columns: 3 240px; column-gap: 40px; list-style: none; padding: 0; margin: .6em 0; }
.phrases li { display: flex; justify-content: space-between; gap: 1em; padding: .15em .4em; break-inside: avoid;
  border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.phrases span + span { flex: none; }
h3 { font-size: 1em; font-weight: 600; margin: 1em 0 .2em; } h3 small { font-weight: 400; color: var(--faint); }
.rejects { list-style: none; margin: 0; padding-left: 1em; border-left: 2px solid var(--line); }
.rejects li { color: var(--faint); } code { font-size: .9em; color: var(--ink); }
.samples { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); }
.samples figure { margin: 0; background: var(--box); border-radius: 6px; overflow: hidden; }
.samples img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; }
.samples div { padding: 6px 12px 10px; } .samples p { color: var(--ink); margin: .35em 0; }
.samples .listed { font-size: .8em; margin: 0 0 .8em; word-spacing: .1em; } .listed mark { margin: 0 2px 0 0; }
.samples figcaption { font-size: .8em; margin: 0; }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 0 2px; margin: 0 -1px; }
mark.twice { background: var(--twice); }
"""


def page(survey: Survey, counts: Mapping[str, Any], rejects: Iterable[Mapping[str, str]], name: str = "the dataset") -> str:
    """The look at a dataset as one HTML document that needs no other file.

    Args:
      survey: of all its records, or of some, which the page then says.
      counts: what preparation counted, as `dataset.read_metadata`.
      rejects: the parsed lines of rejected.jsonl, read once.
      name: what the dataset is called.
    """
    total, sizes = survey.total(), counts.get("splits") or {split: size.records for split, size in survey.splits.items()}
    records = sum(sizes.values())
    source = f"From {counts['source']}, phrases by the tagger {counts.get('tagger', DASH)!r}." if "source" in counts else ""
    body = [f"<h1>A look at {text(name)}</h1>\n<p>{text(source)}</p>", _facts(survey, counts, records)]
    if total.records < records:
        body.append(f"<p>What follows is from {grouped(total.records)} of these records, evenly spaced.</p>")
    body += ["<h2>Splits</h2>", _splits(survey, sizes), _rejects(counts, rejects),
             '<h2>Lengths</h2>\n<div class="histograms">',
             _histogram("Words of a caption", survey.caption_words),
             _histogram("Words of a phrase", survey.phrase_words),
             _histogram("Phrases of a caption", survey.phrases_per_caption), "</div>",
             _commonest(survey), _samples(survey.shown(SAMPLES))]
    return document(f"A look at {name}", CSS, *body)


def marked(caption: str, spans: Iterable[tuple[int, int]]) -> str:
    """The caption as HTML, marked from each start to its end; where spans overlap, the mark is a darker one."""
    spans = [(max(start, 0), min(end, len(caption))) for start, end in spans]
    spans = [(start, end) for start, end in spans if start < end]
    depth_changes = Counter(start for start, _ in spans)
    depth_changes.subtract(end for _, end in spans)
    places = sorted({0, len(caption), *chain.from_iterable(spans)})
    depths = accumulate(depth_changes[place] for place in places)
    pieces = []
    for start, end, depth in zip(places, places[1:], depths, strict=False):
        opening, closing = ("<mark>" if depth == 1 else '<mark class="twice">', "</mark>") if depth else ("", "")
        pieces.append(opening + text(caption[start:end]) + closing)
    return "".join(pieces)


def quantile(histogram: Sequence[int], share: float) -> int:
    """The least value that at least this share of what was counted does not exceed; 0 if nothing was counted."""
    wanted = share * sum(histogram)
    return next(value for value, count in enumerate(accumulate(histogram)) if count >= wanted)


def _facts(survey: Survey, counts: Mapping[str, Any], records: int) -> str:
    """The sizes of the whole dataset, which preparation counted."""
    total = survey.total()
    captions, phrases = counts.get("captions", total.captions), counts.get("phrases", total.phrases)
    without, rejected = counts.get("captions_without_phrase", total.captions_without_phrase), _rejected(counts)
    facts = [(grouped(records), "records"), (grouped(captions), "captions"), (grouped(phrases), "phrases"),
             (_share(without, captions), "of captions have no phrase"),
             (_share(rejected, counts.get("records", records + rejected)), "of records were rejected")]
    return f"""<div class="facts">{"".join(f"<div><b>{value}</b>{what}</div>" for value, what in facts)}</div>"""


def _rejected(counts: Mapping[str, Any]) -> int:
    return sum(counts.get("rejected", {}).values())


def _splits(survey: Survey, sizes: Mapping[str, int]) -> str:
    """A table with a row for each split: how many records it has, and what those looked at hold."""
    rows = [(split, size, survey.splits.get(split, Size())) for split, size in sizes.items()]
    if len(rows) > 1:
        rows.append(("all", sum(sizes.values()), survey.total()))
    columns = {
        "records": lambda records, size: grouped(records),
        "looked at": lambda records, size: grouped(size.records),
        "captions": lambda records, size: grouped(size.captions),
        "phrases": lambda records, size: grouped(size.phrases),
        "phrases a caption": lambda records, size: f"{size.phrases / size.captions:.2f}" if size.captions else DASH,
        "captions without phrase": lambda records, size: _share(size.captions_without_phrase, size.captions)}
    if all(records == size.records for _, records, size in rows):
        del columns["looked at"]
    cells = [(split, [cell(records, size) for cell in columns.values()]) for split, records, size in rows]
    return table(list(columns), cells)


def _histogram(title: str, counts: Sequence[int]) -> str:
    """BARS bars or fewer, each of 1, 2 or 5 values. The last of `counts` is of its value and all above."""
    total, last = sum(counts), len(counts) - 1
    end = max((value for value, count in enumerate(counts) if count), default=0) + 1
    width = next(width for width in (1, 2, 5) if end <= BARS * width)
    bars = [(start, sum(counts[start:start + width])) for start in range(0, end, width)]
    most = max(count for _, count in bars) or 1
    drawn, ticks = [], []
    for i, (start, count) in enumerate(bars):
        name = f"{start}+" if start + width > last else f"{start}{DASH}{start + width - 1}" if width > 1 else str(start)
        drawn.append(f'<i style="height:{100 * count / most:.1f}%" title="{name}: {grouped(count)} '
                     f'({_share(count, total)})"></i>')
        ticks.append(f"<span>{start if i % -(-len(bars) // 8) == 0 else ''}</span>")
    upper = f"{_share(counts[last], total)} have {last} or more" if counts[last] else f"all at most {end - 1}"
    note = (f"Half have at most {quantile(counts, 0.5)}, 95 % at most {quantile(counts, 0.95)}, {upper}."
            if total else "There are none.")
    return (f'<section>\n<h3>{title}</h3>\n'
            f'<div class="bars" role="img" aria-label="{title}. {note}">{"".join(drawn)}</div>\n'
            f'<div class="ticks" aria-hidden="true">{"".join(ticks)}</div>\n<p>{note}</p>\n</section>')


def _commonest(survey: Survey) -> str:
    captions = survey.total().captions
    items = "".join(f"<li><span>{text(phrase)}</span><span>{grouped(count)} ({_share(count, captions)})</span></li>\n"
                    for phrase, count in survey.commonest(COMMONEST))
    note = f"{grouped(len(survey.phrases))} different ones; the captions that have each, and their share of all captions."
    if survey.undercount:
        note = (f"At least {note} Rare phrases were dropped on the way, so a count may be too low, by at most "
                f"{grouped(survey.undercount)}.")
    return f'<h2>Commonest phrases</h2>\n<p>{note}</p>\n<ol class="phrases">\n{items}</ol>'


def _rejects(counts: Mapping[str, Any], rejects: Iterable[Mapping[str, str]]) -> str:
    """Each reason, how often it was met, and the first examples; then the notes."""
    lines, examples = Counter(), {}
    for reject in rejects:
        lines[reject["reason"]] += 1
        if lines[reject["reason"]] <= EXAMPLES:
            examples.setdefault(reject["reason"], []).append(reject)
    by_kind = {what: counts.get(kind, {}) for kind, what in KINDS.items()}
    reasons = Counter(lines)
    for by_reason in by_kind.values():
        reasons |= Counter(by_reason)
    parts = ["<h2>Rejected</h2>"]
    if not reasons:
        parts.append("<p>Nothing.</p>")
    elif records := counts.get("records"):
        parts.append(f"<p>{grouped(_rejected(counts))} of {_many(records, 'record')} "
                     f"({_share(_rejected(counts), records)}). "
                     f"{dataset.REJECTED} lists every reject; the first of each reason are here.</p>")
    for reason, _ in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        met = [_many(by_reason[reason], what) for what, by_reason in by_kind.items() if by_reason.get(reason)]
        shown = "\n".join(f"<li><code>{_excerpt(reject['key'])}</code> {_excerpt(reject['detail'])}</li>"
                          for reject in examples.get(reason, []))
        parts.append(f"<h3>{text(reason)} <small>{', '.join(met) or _many(lines[reason], 'line')}</small></h3>\n"
                     f'<ul class="rejects">\n{shown}\n</ul>')
    if notes := counts.get("notes"):
        listed = "".join(f"<li><code>{text(reason)}</code> {grouped(count)}</li>\n" for reason, count in
                         sorted(notes.items(), key=lambda item: (-item[1], item[0])))
        parts.append(f'<h2>Notes</h2>\n<p>What was met, and cost no record.</p>\n<ul class="rejects">\n{listed}</ul>')
    return "\n".join(parts)


def _samples(samples: Sequence[Sample]) -> str:
    located = all(start is not None for sample in samples for phrases in sample.phrases for _, start, _ in phrases)
    note = ("Chosen at random. Marked: the phrases, where each is first mentioned." if samples and located else
            "Chosen at random, each caption with its phrases." if samples else "There are none.")
    return "\n".join([f'<h2>Records</h2>\n<p>{note}</p>\n<div class="samples">', *map(_sample, samples), "</div>"])


def _sample(sample: Sample) -> str:
    lines = []
    for caption, phrases in zip(sample.captions, sample.phrases, strict=True):
        places = [(start, end) for _, start, end in phrases if start is not None]
        lines.append(f'<p dir="auto">{marked(caption, places)}</p>')
        if unplaced := [phrase for phrase, start, _ in phrases if start is None]:
            listed = " ".join(f"<mark>{text(phrase)}</mark>" for phrase in unplaced)
            lines.append(f'<p class="listed" dir="auto">{listed}</p>')
    if sample.more_captions:
        lines.append(f"<p>and {_many(sample.more_captions, 'more caption')}</p>")
    picture = f'<img src="data:image/jpeg;base64,{b64encode(sample.image).decode()}" alt="the image">'
    origin = f"<figcaption>{text(sample.split)} {text(sample.key)}</figcaption>"
    return f"<figure>{picture}<div>{''.join(lines)}{origin}</div></figure>"


def _share(part: int, whole: int) -> str:
    """"12.3 %"; something is never "0.0 %"."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def _many(count: int, what: str) -> str:
    return f"{grouped(count)} {what}{'s' if count != 1 else ''}"


def _excerpt(value: str) -> str:
    return text(value if len(value) <= MAX_DETAIL else value[:MAX_DETAIL] + "…")
