"""The backends: names, one analysis for all, spaCy's noun chunks, and what is said where something is missing."""
import sys
from types import ModuleType, SimpleNamespace

import pytest

from cc_jax.data import backends, phrases

CAPTION = "The man sees a red\thouse and she greets dogs"


class Doc(list):
    """What is used of a spaCy document."""
    def __init__(self, text, chunks):
        place, tokens = 0, []
        for word in text.split():
            place = text.index(word, place)
            tokens.append(Token(word, place))
            place += len(word)
        super().__init__(tokens)
        self.noun_chunks = [SimpleNamespace(start=a, end=b, root=tokens[b - 1]) for a, b in chunks]


class Token:
    def __init__(self, word, idx):
        self.lower_, self.idx, self.tag_, self.word = word.lower(), idx, "", word
        self.pos_ = "PRON" if word == "she" else "X"

    def __len__(self):
        return len(self.word)


@pytest.fixture
def stub_spacy(monkeypatch):
    """A module with as much of spaCy as is used: one pipeline "stub" and one without noun chunks, "plain"."""
    def load(name):
        if name not in ("stub", "plain"):
            raise OSError(f"[E050] Can't find model '{name}'.")
        doc = lambda text: Doc(text, [(0, 2), (3, 6), (7, 8), (9, 10)] if text == CAPTION else [])
        if name == "plain":
            doc = lambda text: SimpleNamespace(noun_chunks=map(_raise, [ValueError("[E029]")]))
        return type("Pipeline", (), {"pipe_names": ["tagger"], "lang": "xx", "__call__": lambda self, text: doc(text),
                                     "pipe": lambda self, texts: map(doc, texts)})()

    module = ModuleType("spacy")
    module.load, module.util = load, SimpleNamespace(get_installed_models=lambda: ["stub", "plain"])
    monkeypatch.setitem(sys.modules, "spacy", module)
    backends._load_spacy.cache_clear()
    yield
    backends._load_spacy.cache_clear()


def _raise(error):
    raise error


def test_chunks_of_spacy_become_phrases_by_the_same_rules(stub_spacy):
    located = phrases.located_phrases(CAPTION, "spacy:stub")
    assert [(phrase, CAPTION[start:end]) for phrase, (start, end) in located] == [
        ("man", "man"), ("red house", "red\thouse"), ("dogs", "dogs")]


def test_a_pipeline_that_is_missing_or_finds_no_chunks_is_refused(stub_spacy):
    with pytest.raises(LookupError, match=r"'spacy:de_x'.*there are: stub, plain.*spacy download de_x"):
        backends.load_backend("spacy:de_x")
    with pytest.raises(ValueError, match=r"'spacy:plain': this pipeline finds no noun chunks; it has \['tagger'\]"):
        backends.load_backend("spacy:plain")


def test_without_spacy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    backends._load_spacy.cache_clear()
    with pytest.raises(LookupError, match="needs spaCy, which is not installed; pip install spacy.*download en_model"):
        backends.load_backend("spacy:en_model")


def test_a_real_pipeline_is_loaded_from_its_folder(tmp_path):
    """Spanish, its parse made by a component of five lines, because models can't be had everywhere."""
    spacy = pytest.importorskip("spacy")

    @spacy.language.Language.component("by_rule")
    def by_rule(doc):
        nouns = {"perro": "nsubj", "pelota": "obj"}
        heads, deps, pos = [1, 3, 1, 3, 5, 3], ["det", "nsubj", "amod", "ROOT", "det", "obj"], "DET NOUN ADJ VERB DET NOUN"
        if len(doc) != len(heads) or not any(token.text in nouns for token in doc):
            heads, deps, pos = [0] * len(doc), ["ROOT", *["dep"] * (len(doc) - 1)], " ".join(["X"] * len(doc))
        return spacy.tokens.Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc],
                                heads=heads, deps=deps, pos=pos.split())

    pipeline = spacy.blank("es")
    pipeline.add_pipe("by_rule")
    pipeline.to_disk(tmp_path / "es")
    found = phrases.noun_phrases("Un perro negro muerde la pelota", f"spacy:{tmp_path / 'es'}")
    assert found == ["un perro negro", "la pelota"]      # determiners are dropped in English only


def test_an_unknown_name_is_refused_with_those_there_are():
    known = "'shipped', 'nltk', 'spacy:MODEL' or 'precomputed'"
    with pytest.raises(ValueError, match=f"tagger='spacy' is not known; use {known}"):
        phrases.noun_phrases("a dog", tagger="spacy")


def test_the_analysis_of_a_caption_is_one_for_each_sentence():
    [first, second] = next(backends.load_backend("shipped")(["A Red dog. Two cats"]))
    assert first.words == ["a", "red", "dog", "."] and first.refined == ["DT", "COLOUR", "NN", "."]
    assert first.chunks == [(0, 3)] and second.chunks == [(0, 2)] and second.spans[0] == (11, 14)
