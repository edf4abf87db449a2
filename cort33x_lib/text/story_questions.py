"""Questions with one right answer about the end of a story."""

from collections.abc import Callable
from typing import Any, NamedTuple

from cort33x_lib.text.story_plot import BOXED, Tale


class Question(NamedTuple):
    """A question about a story: append prompt to the text, expect answer next.

    kind is who, where, how_many, sum or first_last. The answer begins with the space
    before its first word, as a tokenizer would have it.
    """

    kind: str
    prompt: str
    answer: str


def questions(
    tale: Tale, random: Callable[[], float], passer: str
) -> tuple[Question, ...]:
    """One question of every kind that the story supports; free of charge."""

    asks, names, things = tale.lexicon.asks, tale.names, tale.things
    blanks: dict[str, Any] = {"passer": passer, "plural": tale.plural}
    answers: list[tuple[str, str, str]] = []  # kind, section, answer

    def one(options):
        return options[int(random() * len(options))]

    held = [thing for thing, who in enumerate(tale.holder) if who != BOXED]
    if held:
        thing = one(held)
        blanks["held"] = things[thing]
        answers.append(("who", "who", names[tale.holder[thing]]))
    thing = int(random() * len(things))
    blanks["item"] = things[thing]
    answers.append(("where", "where", tale.whereabouts(thing)))
    counters = [person for person, count in enumerate(tale.count) if count]
    if counters:
        person = one(counters)
        blanks["counter"] = names[person]
        answers.append(("how_many", "how_many", tale.foods(tale.count[person])))
    planners = tale.planners()
    if planners:
        person = one(planners)
        gain = one(tale.gains[tale.count[person]].values)
        blanks["planner"], blanks["gain_maybe"] = names[person], gain
        answers.append(("sum", "sum", tale.foods(tale.count[person] + gain)))
    if tale.moved:
        thing, section = one(tale.moved), one(("first", "last"))
        blanks["moved_" + section] = things[thing]
        person = tale.chain[thing][0 if section == "first" else -1]
        answers.append(("first_last", section, names[person]))
    return tuple(
        Question(kind, one(asks[section]) % blanks, " " + answer)
        for kind, section, answer in answers
    )
