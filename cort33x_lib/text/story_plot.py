"""The plot of the story world: one telling, written strictly from left to right."""

from typing import Any

from cort33x_lib.text.story_words import ASKS, BIT, Lexicon

BOXED = -1  # the holder of a thing that lies in the container
NOBODY = -1
FEW = [[str(number) for number in range(1, many + 1)] for many in range(6)]
DAYS = [BIT["day_1"], BIT["day_2"], BIT["day_3"], 0]
OPEN, FIRST_OPEN = BIT["bare"] | BIT["then"], BIT["bare"] | BIT["first_beat"]
SCENERY, CLOSING, END = BIT["scenery"], BIT["closing"], BIT["end"]
WHERE, WHO, SUM = BIT["where"] | BIT["seen"], BIT["who"], BIT["sum"]
HOW_MANY, MOVED = BIT["how_many"], BIT["first"] | BIT["last"]
GO, FIND, GET, GAIN, LOSE, SEE = (
    BIT[kind] for kind in "go find get gain lose see".split()
)
GIVE, STEAL, PUT, TAKE = (BIT[kind] for kind in "give steal put take".split())


class Tale:
    """The state of one story while a chooser tells it.

    The chooser has four methods: choose(table), choose_except(table, excluded, mass),
    pick(texts) for equally likely texts, and say(text) for what is certain. Every
    choice is made where its text becomes visible, so the text fixes all choices.
    `special` tells the story with reserved pairs and sums instead of without them.
    """

    def __init__(self, lexicon: Lexicon, chooser: Any, special: bool):
        self.lexicon = lexicon
        self.choose, self.choose_except = chooser.choose, chooser.choose_except
        self.pick, self.say = chooser.pick, chooser.say
        self.special = special
        self.gains = lexicon.gains[special]
        self.names: list[str] = []
        self.ids: list[int] = []  # place of each person in the table of names
        self.places: list[str] = []
        self.where: list[str] = []  # "in the barn", for each place
        self.at: list[int] = []  # the place of each person
        self.things: list[str] = []
        self.holder: list[int] = []  # the person who has each thing, or BOXED
        self.thing_ids: list[int] = []  # place of each thing in the table of things
        self.barred: set[int] = set()  # ids of things that may not be added
        self.barred_mass = 0.0
        self.chain: list[list[int]] = []  # all who had it, the first one first
        self.moved: list[int] = []  # things that more than one person has had
        self.count: list[int] = []  # the person's number of foods
        self.subject = self.other = self.went = self.fresh = self.about = NOBODY
        self.day = self.beats = self.finds = self.asides = self.asks = 0
        self.asked = 0  # bits of the questions that were asked already
        self.aside = False  # whether the last sentence left the plot alone

    def tell(self) -> None:
        """Tell the whole story."""
        plot = self.lexicon.plot
        self.run(self.choose(plot["opening"]))
        for section in ("ground", "box"):
            self.say(" ")
            self.run(self.choose(plot[section]))
        last = len(self.names) - 1
        for person, name in enumerate(self.names):
            gap = (" and " if last == 1 else ", and ") if person == last else ", "
            self.say((gap if person else " ") + name)
            self.actor = person
            self.run(self.choose(plot["own"]))
        self.say(". ")
        self.eater = self.pick(self.names)
        self.run(self.choose(plot["meal"]))
        self.say(" ")
        self.run(self.choose(plot["start"]))
        while self.beat():
            self.beats += 1
        self.asked = 0
        for _ in range(self.lexicon.limits["quiz"]):
            kind, steps = self.choose(self.lexicon.mixed(self.open_asks() | END))
            if kind == "end":
                break
            self.ask(kind, steps)

    def run(self, pattern: tuple) -> None:
        """Write what follows the head of a pattern, slot by slot."""
        choose, say = self.choose, self.say
        for table, act, literal in pattern[1]:
            if table is None:
                act(self)
            elif act is None:
                choose(table)
            else:
                act(self, choose(table))
            if literal:
                say(literal)

    def beat(self) -> bool:
        """Write one sentence of the plot; False after the closing one."""
        low, high = self.lexicon.limits["beats"]
        beats = self.beats
        if beats == high:
            mask = CLOSING
        else:
            mask = OPEN | DAYS[self.day] if beats else FIRST_OPEN
            if not self.aside:
                if self.asides < self.lexicon.limits["asides"]:
                    mask |= SCENERY
                if beats and self.asks < self.lexicon.limits["asks"]:
                    mask |= self.open_asks()
            if beats >= low:
                mask |= CLOSING
        self.say(" ")
        pattern = self.choose(self.lexicon.mixed(mask))
        kind = pattern[0]
        if kind in ("bare", "then", "first_beat"):
            self.act(kind == "bare")
        elif kind in ASKS:
            self.asks += 1
            self.ask(*pattern)
        elif kind in ("scenery", "closing"):
            self.asides += 1
            self.leave_plot()
            self.run(pattern)
            return kind == "scenery"
        else:
            self.day += 1
            self.act(False)
        return True

    def leave_plot(self) -> None:
        self.aside, self.subject, self.went, self.fresh = True, NOBODY, NOBODY, NOBODY

    def act(self, capital: bool) -> None:
        """Write what one person does."""
        subject, lexicon = self.subject, self.lexicon
        actor = NOBODY
        if subject != NOBODY:
            pronoun = "she" if self.ids[subject] < lexicon.girls else "he"
            if capital:
                pronoun = pronoun.capitalize()
            if self.choose(lexicon.pronouns[pronoun]):
                actor = subject
        if actor == NOBODY:
            actor = self.pick_person(self.others(subject))
        self.actor = self.eater = self.subject = actor
        pattern = self.choose(lexicon.mixed(self.possible() & lexicon.active or GO))
        kind = pattern[0]
        self.run(pattern)
        self.aside, self.went, self.fresh = False, NOBODY, NOBODY
        if kind == "go":
            self.went = actor
        elif kind == "give":
            self.hand_over(self.other)
        elif kind == "steal" or kind == "take":
            self.hand_over(actor)
        elif kind == "put":
            self.hand_over(BOXED)
        elif kind == "see":
            self.aside = True
            self.asides += 1

    def possible(self) -> int:
        """Bits of what the actor can do here and now."""
        actor, at, lexicon = self.actor, self.at, self.lexicon
        here = at[actor]
        self.near = [q for q, there in enumerate(at) if there == here and q != actor]
        self.own, self.theirs, self.inside = own, theirs, inside = [], [], []
        for thing, holder in enumerate(self.holder):
            if thing == self.fresh:  # nobody undoes what was done just now
                continue
            if holder == actor:
                own.append(thing)
            elif holder == BOXED:
                inside.append(thing)
            elif at[holder] == here:
                theirs.append(thing)
        mask = 0 if self.went == actor else GO
        if own and self.near:
            mask |= GIVE
        if theirs:
            mask |= STEAL
        if here == self.box_at:
            if own:
                mask |= PUT
            if inside:
                mask |= TAKE
        if self.finds < lexicon.limits["finds"]:
            mask |= FIND
        count = self.count[actor]
        if not count:
            mask |= GET
        else:
            if self.gains[count]:
                mask |= GAIN
            if count > 2:
                mask |= LOSE
        if not self.aside and self.asides < lexicon.limits["asides"]:
            mask |= SEE
        return mask

    def hand_over(self, receiver: int) -> None:
        """Let the receiver have the thing that the sentence was about."""
        thing = self.fresh = self.item
        self.holder[thing] = receiver
        chain = self.chain[thing]
        if receiver != BOXED and chain[-1:] != [receiver]:
            chain.append(receiver)
            if len(chain) == 2:
                self.moved.append(thing)

    def open_asks(self) -> int:
        """Bits of the questions that have an answer now and were not asked yet."""
        mask = WHERE
        if max(self.holder) != BOXED:
            mask |= WHO
        for count in self.count:
            if count:
                mask |= HOW_MANY
                if self.gains[count]:
                    mask |= SUM
        if self.moved:
            mask |= MOVED
        return mask & ~self.asked

    def ask(self, kind: str, steps: tuple) -> None:
        self.asked |= BIT[kind]
        self.leave_plot()
        self.run((kind, steps))

    def others(self, person: int) -> list[int]:
        return [q for q in range(len(self.names)) if q != person]

    def planners(self) -> list[int]:
        return [q for q, count in enumerate(self.count) if self.gains[count]]

    def pick_person(self, people: list[int]) -> int:
        names = self.names
        return people[self.pick([names[person] for person in people])]

    def pick_thing(self, things: list[int]) -> int:
        names = self.things
        self.item = things[self.pick([names[thing] for thing in things])]
        return self.item

    def whereabouts(self, thing: int) -> str:
        """Where a thing is: in the container, or at the place of its holder."""
        holder = self.holder[thing]
        if holder == BOXED:
            return f"in the {self.box}"
        return self.where[self.at[holder]]

    def foods(self, count: int) -> str:
        return f"{count} {self.plural if count != 1 else self.single}"
