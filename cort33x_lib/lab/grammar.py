"""Grammar: do the sentences of a sample have forms that the story world writes?

The form of a sentence is what is left when each word of a list is replaced by the kind
of word it is. A form that occurs in the training stories is taken as grammatical, so an
invented word or a wrong order is found. Whether a story hangs together is not.
"""

import re
from collections.abc import Iterable

from cort33x_lib.text.story_world import World

ADJECTIVES = "adjective colour material weather feeling trait mood".split()
NOUNS = "thing place container animal plant job food".split()
KINDS = {
    **dict.fromkeys(ADJECTIVES, "ADJECTIVE"),
    **dict.fromkeys(NOUNS, "NOUN"),
    "activity": "ACTIVITY",
    "verb": "VERB",
    "adverb": "ADVERB",
    "far_village": "NAME",
    "surname": "NAME",
}


class Forms:
    """The sentence forms of some texts, told apart by the word lists of their world."""

    def __init__(self, world: World, texts: Iterable[str]):
        lexicon = world.lexicon
        entries = [(lexicon.names.texts, "NAME"), (lexicon.plurals.texts, "PLURAL")]
        entries += [(lexicon.slots[slot].texts, kind) for slot, kind in KINDS.items()]
        self._kind = {
            word: kind
            for words, kind in entries
            for text in words
            for word in text.split()
        }
        self._known = {form for text in texts for form in self.of(text)}

    def of(self, text: str) -> list[str]:
        """Each sentence's form: "Mia had 3 plums." -> "NAME had NUMBER PLURAL ."."""
        forms = []
        for sentence in re.split(r"(?<=[.?!]) |(?<=[.?!]\") ", text.strip()):
            words = re.findall(r"[A-Za-z'-]+|\d+|[^\w\s]", sentence)
            kinds = ["NUMBER" if w.isdigit() else self._kind.get(w, w) for w in words]
            joined = " ".join(kinds)
            forms.append(re.sub(r"\b(NOUN|ADJECTIVE|NAME)( \1)+\b", r"\1", joined))
        return forms

    def share_known(self, text: str) -> float:
        """The share of a text's sentences whose form is known, from 0 to 1."""
        forms = self.of(text)
        return sum(form in self._known for form in forms) / len(forms)
