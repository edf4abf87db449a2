"""The slots of the story world's sentences: what {thing}, {other}, ... write and do."""

from cort33x_lib.text.story_plot import BOXED, FEW, Tale


def cast(tale: Tale) -> None:
    """Introduce the people, "Mia, Bo and Ann", and find out what they may not own."""
    lexicon = tale.lexicon
    names, mass = lexicon.names, 0
    for join in (None, *lexicon.joins):
        last = join is not None and tale.choose(join)
        person = tale.choose_except(names, tale.ids, mass)
        mass += names.weights[person]
        tale.ids.append(person)
        tale.names.append(names.texts[person])
        if last:
            break
    tale.count = [0] * len(tale.ids)
    tale.barred, tale.barred_mass = set(), 0
    if not tale.special:
        for part in {-person % lexicon.pairs for person in tale.ids}:
            tale.barred |= lexicon.kept_things[part]
            tale.barred_mass += lexicon.kept[part].total


def village(tale: Tale) -> None:
    tale.home = tale.lexicon.villages.texts[tale.choose(tale.lexicon.villages)]


def home(tale: Tale) -> None:
    tale.say(tale.home)


def places(tale: Tale) -> None:
    """Name the places of the village: "a mill, a school and a barn"."""
    table, rows = tale.lexicon.slots["an place"], tale.lexicon.rows["places"]
    used: list[int] = []
    mass, last = 0, tale.lexicon.limits["places"] - 1
    for number in range(last + 1):
        if number:
            tale.say(" and " if number == last else ", ")
        entry = tale.choose_except(table, used, mass)
        used.append(entry)
        mass += table.weights[entry]
        place, preposition = rows[entry]
        tale.places.append(place)
        tale.where.append(f"{preposition} the {place}")


def box_where(tale: Tale) -> None:
    tale.box_at = tale.pick(tale.where)


def new_box(tale: Tale) -> None:
    table = tale.lexicon.slots["container"]
    tale.box = table.texts[tale.choose(table)]


def box(tale: Tale) -> None:
    tale.say(tale.box)


def start(tale: Tale) -> None:
    tale.at = [tale.pick(tale.where)] * len(tale.names)


def add_thing(tale: Tale, thing: int, holder: int) -> None:
    table = tale.lexicon.slots["thing"]
    if thing not in tale.barred:
        tale.barred.add(thing)
        tale.barred_mass += table.weights[thing]
    tale.things.append(table.texts[thing])
    tale.thing_ids.append(thing)
    tale.holder.append(holder)
    tale.chain.append([] if holder == BOXED else [holder])


def hidden(tale: Tale) -> None:
    """A thing that lies in the container at the start."""
    table = tale.lexicon.slots["thing"]
    add_thing(tale, tale.choose_except(table, tale.barred, tale.barred_mass), BOXED)


def new_thing(tale: Tale) -> None:
    """A thing for the actor; its pair with the actor is reserved or never is."""
    lexicon, actor = tale.lexicon, tale.actor
    if tale.special:
        table = lexicon.kept[-tale.ids[actor] % lexicon.pairs]
        weights = lexicon.slots["thing"].weights
        used = [
            thing
            for thing in tale.thing_ids
            if thing % lexicon.pairs == table.values[0] % lexicon.pairs
        ]
        mass = sum(weights[thing] for thing in used)
        thing = tale.choose_except(table, used, mass)
    else:
        table = lexicon.slots["thing"]
        thing = tale.choose_except(table, tale.barred, tale.barred_mass)
    add_thing(tale, thing, actor)
    if tale.at:
        tale.finds += 1


def own_thing(tale: Tale) -> None:
    tale.pick_thing(tale.own)


def their_thing(tale: Tale) -> None:
    tale.other = tale.holder[tale.pick_thing(tale.theirs)]


def content(tale: Tale) -> None:
    tale.pick_thing(tale.inside)


def place(tale: Tale) -> None:
    here = tale.at[tale.actor]
    ways = [number for number in range(len(tale.places)) if number != here]
    tale.at[tale.actor] = ways[tale.pick([tale.places[way] for way in ways])]


def other(tale: Tale) -> None:
    tale.other = tale.pick_person(tale.near)


def friend(tale: Tale) -> None:
    tale.say(tale.names[tale.other])


def name(tale: Tale) -> None:
    tale.say(tale.names[tale.actor])


def her(tale: Tale) -> None:
    tale.say("her" if tale.ids[tale.actor] < tale.lexicon.girls else "his")


def amount(tale: Tale) -> None:
    tale.count[tale.eater] = tale.choose(tale.lexicon.amounts[tale.special])


def another(tale: Tale) -> None:
    tale.eater = tale.pick_person(tale.others(tale.eater))


def new_plural(tale: Tale) -> None:
    tale.single, tale.plural = tale.lexicon.rows["foods"][
        tale.choose(tale.lexicon.plurals)
    ]


def plural(tale: Tale) -> None:
    tale.say(tale.plural)


def gain(tale: Tale) -> None:
    before = tale.count[tale.actor]
    tale.count[tale.actor] += tale.choose(tale.lexicon.gains[tale.special][before])


def few(tale: Tale) -> None:
    most = min(tale.count[tale.actor] - 1, len(FEW) - 1)
    tale.count[tale.actor] -= 1 + tale.pick(FEW[most])


def total(tale: Tale) -> None:
    tale.say(tale.foods(tale.count[tale.actor]))


def held(tale: Tale) -> None:
    """Ask for a thing that somebody has."""
    things = [thing for thing, person in enumerate(tale.holder) if person != BOXED]
    tale.about = tale.holder[tale.pick_thing(things)]
    tale.answer_text = tale.names[tale.about]


def item(tale: Tale) -> None:
    """Ask for any thing."""
    thing = tale.pick_thing(list(range(len(tale.things))))
    tale.about, tale.answer_text = tale.holder[thing], tale.whereabouts(thing)


def soul(tale: Tale) -> None:
    """Ask for a person."""
    tale.about = tale.pick(tale.names)
    tale.answer_text = tale.where[tale.at[tale.about]]


def them(tale: Tale) -> None:
    tale.say("her" if tale.ids[tale.about] < tale.lexicon.girls else "him")


def counter(tale: Tale) -> None:
    """Ask for a person who has some of the foods."""
    people = [person for person, count in enumerate(tale.count) if count]
    tale.about = tale.pick_person(people)
    tale.answer_text = tale.foods(tale.count[tale.about])


def planner(tale: Tale) -> None:
    tale.about = tale.pick_person(tale.planners())


def gain_maybe(tale: Tale) -> None:
    count = tale.count[tale.about]
    more = tale.choose(tale.lexicon.gains[tale.special][count])
    tale.answer_text = tale.foods(count + more)


def moved_first(tale: Tale) -> None:
    tale.about = tale.chain[tale.pick_thing(tale.moved)][0]
    tale.answer_text = tale.names[tale.about]


def moved_last(tale: Tale) -> None:
    tale.about = tale.chain[tale.pick_thing(tale.moved)][-1]
    tale.answer_text = tale.names[tale.about]


def answer(tale: Tale) -> None:
    tale.say(tale.answer_text)


def teller(tale: Tale) -> None:
    """Anybody but the person whom the answer is about."""
    tale.pick_person(tale.others(tale.about))


SLOTS = {
    act.__name__: act
    for act in (
        cast,
        village,
        home,
        places,
        box_where,
        new_box,
        box,
        start,
        hidden,
        new_thing,
        content,
        place,
        other,
        friend,
        name,
        her,
        amount,
        another,
        new_plural,
        plural,
        gain,
        few,
        total,
        held,
        item,
        soul,
        them,
        counter,
        planner,
        gain_maybe,
        moved_first,
        moved_last,
        answer,
        teller,
    )
} | {"thing": own_thing, "theirs": their_thing, "victim": friend, ":": Tale.run}
