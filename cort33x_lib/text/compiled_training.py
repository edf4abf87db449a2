"""The compiled trainer: the merges of `counted_merges`, sooner.

Threads count the unique pieces, which then lie in one array, a slot a byte. A token
fills as many slots as it has bytes and stands in its first and its last, so both
neighbours of a token are one step away. Every pair knows the places where it was when
it was born, and passes over those that changed since. A pair with a new token is born
in the step that makes the token: lists of places never grow, and counts never rise, so
a heap whose entries are too high gives the next pair once they are put right.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cort33x_lib.text.compiled_encoding import Encoder, PieceTable
from cort33x_lib.text.compiled_memory import inlined, kernel
from cort33x_lib.text.merging import Pair
from cort33x_lib.text.patterns import Pattern

__all__ = ["Encoder", "train"]
LEFT, RIGHT, COUNT, FIRST, SIZE = range(5)  # columns of `pairs`
BEFORE, LOST, AFTER = range(3)  # what is tallied of a new token's neighbours
TIMES, PLACES, NEXT = range(3)  # columns of a tally
MADE, ENTRIES, PAIRS, USED = range(4)  # of `state`: merges, heap, pairs, pool
DEAD = -1  # in a slot inside a token


def train(
    blocks: Iterator[bytes], count: int, pattern: Pattern, workers: int
) -> list[Pair]:
    """At most `count` merges learnt from the pieces of blocks of text."""
    lock, tables = threading.Lock(), [PieceTable(pattern, 12) for _ in range(workers)]

    def work(table: PieceTable) -> None:
        while True:
            with lock:
                block = next(blocks, None)
            if block is None:
                return
            table.count(block)

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, tables))
    for table in tables[1:]:
        tables[0].add(table)
    return learn(*tables[0].spread(), count)


def learn(data: np.ndarray, weights: np.ndarray, count: int) -> list[Pair]:
    """At most `count` merges of pieces, end to end in `data` after the bytes 0 to 255.

    `weights` has how often a piece occurs, and 0 for a slot that is in none.
    """
    apart, pool = 256 + count, np.empty(3 * len(data), np.int32)
    symbols = data.astype(np.int32)
    symbols[weights == 0] = apart
    lengths, where = np.ones(apart + 1, np.int64), np.arange(apart + 1)
    text, spelling = (symbols, weights, lengths, apart), (data, where, lengths)
    tallies = np.zeros((3, apart + 1, 3), np.int64)
    seen, merges = np.zeros((3, apart + 2), np.int64), np.zeros((count, 2), np.int64)
    pairs, state = first_pairs(data, weights, pool), np.zeros(4, np.int64)
    state[PAIRS:] = len(pairs), pairs[:, SIZE].sum()
    while True:
        pairs = np.concatenate([pairs, np.empty((len(pairs) + 2 * apart, 5), np.int64)])
        heap = np.empty((len(pairs), 2), np.int64)
        index = np.full(1 << (2 * len(pairs)).bit_length(), -1, np.int32)
        state[ENTRIES] = 0
        enter(index, heap, pairs, spelling, 0, state)
        merge_pairs(
            text, spelling, pool, tallies, seen, index, heap, pairs, merges, state
        )
        if state[MADE] == count or state[ENTRIES] == 0:
            break
    return [tuple(pair) for pair in merges[: state[MADE]].tolist()]


def first_pairs(data: np.ndarray, weights: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Every pair of bytes, int64 (pairs, 5); the places of each follow in `pool`."""
    at = np.flatnonzero((weights[:-1] > 0) & (weights[1:] > 0)).astype(np.int32)
    codes = data[at].astype(np.uint16) << 8 | data[at + 1]
    order = np.argsort(codes, kind="stable")
    pool[: len(at)] = at[order]
    kinds, first, size = np.unique(codes[order], True, return_counts=True)
    counts = np.add.reduceat(weights[at[order]], first) if len(at) else first
    return np.stack([kinds >> 8, kinds & 255, counts, first, size], 1).astype(np.int64)


@kernel
def spelled_before(spelling, one, other):
    """Whether the bytes of a token come before those of another."""
    data, where, lengths = spelling
    for place in range(min(lengths[one], lengths[other])):
        here, there = data[where[one] + place], data[where[other] + place]
        if here != there:
            return here < there
    return lengths[one] < lengths[other]


@inlined
def ahead(heap, pairs, spelling, one, other):
    """Whether an entry of the heap is merged before another."""
    if heap[one, 0] != heap[other, 0]:
        return heap[one, 0] > heap[other, 0]
    first, second = heap[one, 1], heap[other, 1]
    side = LEFT if pairs[first, LEFT] != pairs[second, LEFT] else RIGHT
    return spelled_before(spelling, pairs[first, side], pairs[second, side])


@inlined
def swap(heap, one, other):
    """Exchange two entries of the heap."""
    for column in range(2):
        kept = heap[one, column]
        heap[one, column], heap[other, column] = heap[other, column], kept


@kernel
def rise(heap, pairs, spelling, place):
    """Move an entry up past all that it is ahead of."""
    while place > 0 and ahead(heap, pairs, spelling, place, (place - 1) // 2):
        swap(heap, place, (place - 1) // 2)
        place = (place - 1) // 2


@kernel
def sink(heap, pairs, spelling, size):
    """Move the first entry down past all that are ahead of it."""
    place = 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and ahead(heap, pairs, spelling, below + 1, below):
            below += 1
        if not ahead(heap, pairs, spelling, below, place):
            break
        swap(heap, place, below)
        place = below


@inlined
def slot_of(index, pairs, left, right):
    """Where in the index a pair is, or the free slot where it belongs."""
    mask = len(index) - 1
    slot = (left * 0x9E3779B1 ^ right * 0x85EBCA6B) >> 7 & mask
    while index[slot] >= 0:
        number = index[slot]
        if pairs[number, LEFT] == left and pairs[number, RIGHT] == right:
            break
        slot = (slot + 1) & mask
    return slot


@kernel
def enter(index, heap, pairs, spelling, start, state):
    """Put the pairs from `start` on into the index and the heap."""
    for number in range(start, state[PAIRS]):
        left, right = pairs[number, LEFT], pairs[number, RIGHT]
        index[slot_of(index, pairs, left, right)] = number
        if pairs[number, COUNT] > 0:
            entry = state[ENTRIES]
            heap[entry, 0], heap[entry, 1] = pairs[number, COUNT], number
            rise(heap, pairs, spelling, entry)
            state[ENTRIES] += 1


@inlined
def tally(tallies, seen, side, neighbour, weight):
    """Add to what is known of a neighbour, and list it when it is new."""
    if tallies[side, neighbour, PLACES] == 0:
        seen[side, 0] += 1
        seen[side, seen[side, 0]] = neighbour
    tallies[side, neighbour, TIMES] += weight
    tallies[side, neighbour, PLACES] += 1


@kernel
def join(text, places, merge, tallies, seen):
    """Write the new token wherever its pair still is; gives at how many places.

    Those places move to the front. Tallied: the neighbours that lose the pair's left
    and right token, then those that follow the new one.
    """
    symbols, weights, lengths, apart = text
    left, right, token = merge
    reach, length, kept = lengths[left], lengths[token], 0
    for place in range(len(places)):
        at = places[place]
        if symbols[at] != left or symbols[at + reach] != right:
            continue
        symbols[at + reach - 1] = symbols[at + reach] = DEAD
        symbols[at] = symbols[at + length - 1] = token
        before, after = symbols[at - 1], symbols[at + length]
        if before != token and before != apart:
            tally(tallies, seen, BEFORE, before, weights[at])
        if after != apart:
            tally(tallies, seen, LOST, after, weights[at])
        places[kept] = at
        kept += 1
    for place in range(kept):
        at = places[place]
        if symbols[at + length] != apart:
            tally(tallies, seen, AFTER, symbols[at + length], weights[at])
    return kept


@kernel
def bear(text, places, merge, tallies, seen, pairs, pool, state):
    """Make the pairs of the new token with its neighbours, and note their places."""
    symbols, _, lengths, apart = text
    token = merge[2]
    for side in (BEFORE, AFTER):
        for place in range(1, seen[side, 0] + 1):
            neighbour, number = seen[side, place], state[PAIRS]
            pairs[number, LEFT] = neighbour if side == BEFORE else token
            pairs[number, RIGHT] = token if side == BEFORE else neighbour
            pairs[number, COUNT] = tallies[side, neighbour, TIMES]
            pairs[number, SIZE] = tallies[side, neighbour, PLACES]
            pairs[number, FIRST] = tallies[side, neighbour, NEXT] = state[USED]
            state[USED] += pairs[number, SIZE]
            state[PAIRS] += 1
    for place in range(len(places)):
        at = places[place]
        before, after = symbols[at - 1], symbols[at + lengths[token]]
        if before != token and before != apart:
            pool[tallies[BEFORE, before, NEXT]] = at - lengths[before]
            tallies[BEFORE, before, NEXT] += 1
        if after != apart:
            pool[tallies[AFTER, after, NEXT]] = at
            tallies[AFTER, after, NEXT] += 1


@kernel
def lose(index, pairs, merge, tallies, seen):
    """Lower the counts of the pairs that a merge broke, and forget the tallies."""
    for side in range(3):
        for place in range(1, seen[side, 0] + 1):
            neighbour = seen[side, place]
            if side != AFTER:
                left = neighbour if side == BEFORE else merge[1]
                right = merge[0] if side == BEFORE else neighbour
                number = index[slot_of(index, pairs, left, right)]
                pairs[number, COUNT] -= tallies[side, neighbour, TIMES]
            tallies[side, neighbour, TIMES] = tallies[side, neighbour, PLACES] = 0
        seen[side, 0] = 0


@kernel
def merge_pairs(text, spelling, pool, tallies, seen, index, heap, pairs, merges, state):
    """Fill `merges` until they are full, no pair is left, or `pairs` lack room."""
    lengths, where = text[2], spelling[1]
    while state[MADE] < len(merges) and state[ENTRIES] > 0:
        number, token = heap[0, 1], 256 + state[MADE]
        if pairs[number, COUNT] == 0:
            state[ENTRIES] -= 1
            swap(heap, 0, state[ENTRIES])
            sink(heap, pairs, spelling, state[ENTRIES])
            continue
        if pairs[number, COUNT] != heap[0, 0]:
            heap[0, 0] = pairs[number, COUNT]
            sink(heap, pairs, spelling, state[ENTRIES])
            continue
        if state[PAIRS] + 2 * token > len(pairs):
            break
        merge = (pairs[number, LEFT], pairs[number, RIGHT], token)
        merges[state[MADE], 0], merges[state[MADE], 1] = merge[0], merge[1]
        lengths[token] = lengths[merge[0]] + lengths[merge[1]]
        places = pool[pairs[number, FIRST] :][: pairs[number, SIZE]]
        places = places[: join(text, places, merge, tallies, seen)]
        where[token] = places[0]
        start = state[PAIRS]
        bear(text, places, merge, tallies, seen, pairs, pool, state)
        enter(index, heap, pairs, spelling, start, state)
        lose(index, pairs, merge, tallies, seen)
        pairs[number, COUNT] = 0
        state[MADE] += 1
