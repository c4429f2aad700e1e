"""What a noun phrase is, as data: word classes, compound prepositions, one chunk grammar, and phrases to leave out.

A tagger gives Penn Treebank tags; `refine` corrects them with the word lists below; `chunk` finds the phrases in the
refined tags. Tags added here: COLOUR, PART (the head of "a group of people"), OF (its "of"), PREP (a word of "in front
of") and TIME. Words are lower case throughout.
"""
import re
from collections.abc import Sequence
from functools import cache, lru_cache

# "the black/NN and white/JJ dog": taggers waver between noun and adjective, so colours have a tag of their own.
COLOURS = frozenset(
    "beige black blond blonde blue brown cyan gold golden gray green grey khaki magenta maroon navy orange pink "
    "purple red silver tan teal turquoise violet white yellow".split())

# "a group/PART of/OF people" is one phrase: the head alone says nothing one can see.
PARTITIVES = frozenset(
    "bag bags basket baskets bit bits body bottle bottles bouquet bowl bowls box boxes bucket buckets bunch bunches "
    "bundle bundles can cans chunk chunks class cluster clusters collection couple couples crowd crowds cup cups dozens "
    "ear ears families family field flock flocks game glass glasses group groups handful heap herd herds hundreds kind "
    "kinds line load loads lot lots millions mound number pack packs pair pairs piece pieces pile piles plate plates row "
    "rows series set sets sheet sheets slice slices sort stack stacks stream streams string swarm team teams thousands "
    "tray trays tub type types variety".split())

# "a snow covered roof", "marble sized grapes": with the noun before them they describe the next one.
COMPOUNDING = frozenset(
    "carpeted clad colored coloured covered decorated filled haired lined painted paved patterned shaped sized themed "
    "topped".split())

# "their final game monday": a noun to a tagger, but part of no phrase, save before a noun ("the saturday market").
TIMES = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight yesterday overnight".split())

# "a boy jumps/NNS off a wall", "a man walking/NN": what follows a noun and looks like one, but says what it does.
# Without those that name things as often: "water skis", "two red crosses".
VERBS = frozenset(
    "approaches attempts balances balancing carries carrying catches catching celebrates celebrating cheers climbing "
    "climbs crossing dances dancing digs dives diving drinking drives driving eating eats enjoying enjoys fighting "
    "fights floats flying gathers grinning grins hits hitting holding holds jumping jumps kicking kicks kissing "
    "laughing laughs laying leading leads leaning leans leaping leaps looking looks lying marches marching moves "
    "moving performing performs pitches pitching playing plays poses posing practices practicing prepares preparing "
    "pulling pulls pushes pushing reaches reading reads resting rests rides riding running runs singing sings sits "
    "sitting skateboards skating skiing sleeping sleeps sliding smiles smiling smokes smoking soars speaking speaks "
    "standing stands stares staring surfing surfs swimming swims swinging takes taking talking talks throwing throws "
    "tunes tuning waiting waits walking walks watches watching wearing wears working yells".split())

# "a cat in front of a car" holds a cat and a car, but no front. Longer ones first where one begins another.
COMPOUND_PREPOSITIONS = tuple(tuple(phrase.split()) for phrase in (
    "on the other side of", "on the left side of", "on the right side of", "to the left side of",
    "to the right side of", "at the bottom of", "at the edge of", "at the end of", "at the side of", "at the top of",
    "by the side of", "in the back of", "in the center of", "in the front of", "in the middle of", "in the midst of",
    "on the back of", "on the edge of", "on the left of", "on the right of", "on the side of", "on the top of",
    "to the front of", "to the left of", "to the right of", "to the side of", "in back of", "in front of", "left of",
    "next to", "on top of", "out of", "outside of", "right of", "because of",
))

# Dropped where they are the whole phrase: places in the picture, the picture itself, and words for anything at all.
STOP_PHRASES = frozenset(
    "air back background bottom center centre day distance edge end foreground front fun left lot middle midair number "
    "one order other others own part rest right side sides sort kind time top type use view way "
    "image images photo photograph photographs photos picture pictures "
    "thing things there".split()) | {
    "file photo", "stock image", "stock images", "stock photo", "stock photography", "stock photos"}

# Nouns to a tagger, but they name nothing.
PRONOUNS = frozenset(
    "anybody anyone anything everybody everyone everything nobody nothing somebody someone something "
    "he her herself him himself i it itself me myself ourselves she them themselves they we you yourself".split())

# Dropped at the start of a phrase; "no" stays, because "no shirt" is not "shirt".
DETERMINERS = frozenset(
    "a an the this that these those some any each every another all both either such "
    "my your his her its our their whose".split())

_MODIFIER = "<CD|JJ.*|COLOUR|VB[DGN]>"
_PIECES = {
    # "a large group of" people
    "partitive": r"(<DT|PRP\$>?<CD|JJ.*>*<PART><OF>)?",
    # "his running" dog, "a very long striped" scarf, a "well dressed" man; a participle needs something before it: not
    # "wearing hats"
    "modifiers": rf"(<DT|PRP\$>{_MODIFIER}*|<DT|PRP\$>?(<RB>?<CD|JJ.*|COLOUR>|<RB><VBN>){_MODIFIER}*)?",
    # "black and white" dog, "tall, old" man, "red, white and blue" flag
    "joined": rf"(<COLOUR|JJ>(<,><COLOUR|JJ>)*(<,>?<CC>|<,>){_MODIFIER}+)?",
    # "tennis ball"
    "nouns": r"<NN.*|PART>+",
    # man "'s left hand"
    "possessed": rf"(<POS>{_MODIFIER}*<NN.*>+)?",
}
_RULES = (
    "".join(_PIECES.values()),
    r"<DT|PRP\$><CD|JJ.*|COLOUR>*<JJ>",     # "a small boy/JJ": the tagger missed the noun
    r"<COLOUR>(<CC><COLOUR>)?",             # a woman in "black and white"
)
GRAMMAR = "\n".join(["NP:", *("{" + rule + "}" for rule in _RULES)])
_CHUNKABLE = ("NN", "JJ", "DT", "PRP$", "CD", "CC", ",", "POS", "RB", "VBD", "VBG", "VBN", "COLOUR", "PART", "OF")
_DESCRIBING = ("NN", "JJ", "COLOUR", "RB")
_AFTER_A_VERB = ("DT", "PRP$", "PRP", "RB", "RP", "TO")
_QUESTION_WORDS = ("that", "what", "whatever", "which", "whichever", "who", "whoever", "whom")
_LONGEST = 60       # tokens; the parser's regular expressions take quadratic time on one endless run


def refine(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Corrects Penn tags by the word lists above.

    Args:
      words: lower-case tokens of one sentence.
      tags: their Penn Treebank tags.
    Returns: as many tags, with COLOUR, PART, OF, PREP and TIME where they apply.
    """
    return _refine_by_neighbours(words, _refine_by_word(words, list(tags)))


def _refine_by_word(words: Sequence[str], tags: list[str]) -> list[str]:
    following = [*words[1:], ""]
    for i, word in enumerate(words):
        if word.isalpha() and word not in _LISTED and tags[i] not in ("WDT", "WP"):
            continue                        # most words: none of the rules below is about them
        if word in PRONOUNS:
            tags[i] = "PRP$" if tags[i] == "PRP$" else "PRP"    # "her" hat
        elif not any(map(str.isalnum, word)) and tags[i] not in (",", "POS"):
            tags[i] = "."                   # taggers take a quotation mark or a bracket for anything
        elif word == "well" and tags[i + 1:i + 2] in (["VBN"], ["VBD"]):
            tags[i:i + 2] = ["RB", "VBN"]   # "a well/NN dressed man"
        elif tags[i] in ("WDT", "WP") and word not in _QUESTION_WORDS:
            tags[i] = "NN"                  # "a blue hat/WDT": it ends like "what"
        elif word in COLOURS:
            tags[i] = "COLOUR"
        elif word in PARTITIVES and following[i] == "of":
            tags[i] = "PART"
        elif word == "of" and i and tags[i - 1] == "PART":
            tags[i] = "OF"
        elif word in VERBS and i and tags[i].startswith("NN") and tags[i - 1].startswith(("NN", "JJ")):
            if i + 1 == len(words) or not tags[i + 1].startswith("NN"):     # but "a climbing wall" stays a noun
                tags[i] = "VBZ" if word.endswith("s") else "VB"
        elif word in _PREPOSITIONS_BY_FIRST_WORD:
            for phrase in _PREPOSITIONS_BY_FIRST_WORD[word]:
                if tuple(words[i:i + len(phrase)]) == phrase:
                    tags[i:i + len(phrase)] = ["PREP"] * len(phrase)
                    break
    return tags


def _refine_by_neighbours(words: Sequence[str], tags: list[str]) -> list[str]:
    for i, word in enumerate(words):
        before, tag, after = tags[i - 1] if i else "", tags[i], tags[i + 1] if i + 1 < len(tags) else ""
        if word in TIMES and not after.startswith("NN"):
            tags[i] = "TIME"
        elif word in COMPOUNDING and before.startswith(_DESCRIBING) and after.startswith(_DESCRIBING):
            tags[i - 1:i + 1] = ["JJ", "JJ"]
        elif after in _AFTER_A_VERB and (before, tag) in (("NN", "NNS"), ("NNP", "NNS"), ("NNS", "NN")):
            tags[i] = "VBZ" if tag == "NNS" else "VBP"      # "the boy kicks/NNS a ball", "soldiers guard/NN the gate"
        elif word == "-" and _joins(tags[max(i - 2, 0):i], tags[i + 1:i + 3]):
            tags[i - 1:i + 2] = ["JJ"] * 3                  # "a snow - covered roof", as some data writes hyphens
    return tags


def _joins(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether a hyphen between spaces joins its neighbours to an adjective, and is not a dash: "a dog - small and fat"."""
    if len(before) < 2 or len(after) < 2 or before[0] not in ("DT", "PRP$") or not after[1].startswith(("NN", "JJ")):
        return False
    return (before[1].startswith(("JJ", "CD", "RB", "COLOUR")) and after[0].startswith(("NN", "VBN", "VBD", "VBG", "JJ"))
            or before[1].startswith("NN") and after[0].startswith(("VBN", "VBD", "VBG")))


def chunk(tags: Sequence[str]) -> list[tuple[int, int]]:
    """Finds the noun phrases in refined tags, as token ranges [start, end), in order and without overlap."""
    ranges, run = [], []
    for i, tag in enumerate([*tags, "END"]):
        if tag.startswith(_CHUNKABLE) and len(run) < _LONGEST:
            run.append(tag)
            continue
        if run:
            ranges += [(i - len(run) + start, i - len(run) + end) for start, end in _chunk_run(tuple(run))]
        run = [tag] if tag.startswith(_CHUNKABLE) else []
    return ranges


@lru_cache(maxsize=100_000)     # few runs of tags make up most captions
def _chunk_run(tags: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """What NLTK's RegexpParser finds with GRAMMAR, without its trees: each rule in turn, on what earlier ones left."""
    text, ranges = "".join(f"<{tag}>" for tag in tags), []
    for rule in _patterns():
        for match in rule.finditer(text):
            first = text.count(">", 0, match.start())
            ranges.append((first, first + match[0].count(">")))
        text = rule.sub(lambda match: re.sub("[^>]", " ", match[0]), text)     # no rule matches " >"
    return tuple(sorted(ranges))


@cache
def _patterns() -> list[re.Pattern]:
    from nltk.chunk.regexp import tag_pattern2re_pattern  # here: NLTK takes a second to import, and training needs none
    return [re.compile(tag_pattern2re_pattern(rule)) for rule in _RULES]


_PREPOSITIONS_BY_FIRST_WORD = {
    first: [phrase for phrase in COMPOUND_PREPOSITIONS if phrase[0] == first]
    for first in {phrase[0] for phrase in COMPOUND_PREPOSITIONS}
}
_LISTED = PRONOUNS | COLOURS | PARTITIVES | VERBS | {"of", "well", *_PREPOSITIONS_BY_FIRST_WORD}
