"""The compiled trainer: the merges of `counted_merges`, sooner.

Threads count the unique pieces, which then lie in one array, a slot a byte. A token
fills as many slots as it has bytes and stands in its first and its last, so both
neighbours of a token are one step away. Every pair knows the places where it was when
it was born; a place that changed since is passed over. A pair with a new token is born
in the step that makes the token, so lists of places are never added to.

A pair below a floor is not kept. As no count ever rises, it matters only when the best
pair has fallen to the floor: then everything is counted again under a lower one.
Kernels that call one another are all in this file, for numba's cache.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cort33x_lib.text.compiled_encoding import Encoder, PieceTable
from cort33x_lib.text.compiled_memory import inlined, kernel
from cort33x_lib.text.compiled_pairs import (
    COUNT,
    FIRST,
    LEFT,
    RIGHT,
    SIZE,
    gather,
    longer,
    rise,
    sink,
    slot_of,
    survey,
    swap,
    wider,
)
from cort33x_lib.text.patterns import Pattern

__all__ = ["Encoder", "train"]
BEFORE, LOST, AFTER = range(3)  # what is tallied of a new token's neighbours
TIMES, PLACES, NEXT = range(3)  # columns of `sums`
SHARE = 32  # the floor is the best pair's count divided by this
DEAD = -1  # in a slot inside a token


def train(blocks: Iterator[bytes], count: int, cut: Pattern, workers: int) -> list:
    """At most `count` merges learnt from the pieces of blocks of text."""
    lock, tables = threading.Lock(), [PieceTable(cut, 12) for _ in range(workers)]

    def work(table: PieceTable) -> None:
        while True:
            with lock:
                block = next(blocks, None)
            if block is None:
                return
            table.count(block)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, tables))
    for table in tables[1:]:
        tables[0].add(table)
    data, weights = tables[0].spread()
    apart = 256 + count
    symbols = data.astype(np.int32)
    symbols[weights == 0] = apart
    lengths, where = np.ones(apart + 1, np.int64), np.arange(apart + 1)
    merges = np.empty((count, 2), np.int64)
    made = learn(
        (symbols, weights, lengths, apart),
        (data, where, lengths),
        np.empty(3 * len(data), np.int32),
        np.zeros((3, apart + 1, 3), np.int64),
        np.zeros((3, apart + 2), np.int64),
        merges,
    )
    return [tuple(pair) for pair in merges[:made].tolist()]


@inlined
def tally(sums, seen, side, neighbour, weight):
    """Add to what is known of a neighbour, and list it when it is new."""
    if sums[side, neighbour, PLACES] == 0:
        seen[side, 0] += 1
        seen[side, seen[side, 0]] = neighbour
    sums[side, neighbour, TIMES] += weight
    sums[side, neighbour, PLACES] += 1


@kernel
def join(text, places, merge, sums, seen):
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
        if symbols[at - 1] != token:
            tally(sums, seen, BEFORE, symbols[at - 1], weights[at])
        tally(sums, seen, LOST, symbols[at + length], weights[at])
        places[kept] = at
        kept += 1
    for place in range(kept):
        at = places[place]
        tally(sums, seen, AFTER, symbols[at + length], weights[at])
    return kept


@kernel
def bear(text, merge, sums, seen, pairs, size, floor, used):
    """Lay out the pairs that the new token makes, if the floor keeps them."""
    apart, token = text[3], merge[2]
    for side in (BEFORE, AFTER):
        for place in range(1, seen[side, 0] + 1):
            neighbour = seen[side, place]
            known = sums[side, neighbour]
            known[NEXT] = -1
            if neighbour != apart and known[TIMES] >= floor:
                pair = pairs[size]
                pair[LEFT] = neighbour if side == BEFORE else token
                pair[RIGHT] = token if side == BEFORE else neighbour
                pair[COUNT], pair[SIZE] = known[TIMES], known[PLACES]
                pair[FIRST] = known[NEXT] = used
                used += known[PLACES]
                size += 1
    return size, used


@kernel
def note(text, places, merge, sums, pool):
    """Write down where the pairs are that were just born."""
    symbols, _, lengths, _ = text
    token = merge[2]
    for place in range(len(places)):
        at = places[place]
        neighbour = symbols[at - 1]
        if neighbour != token and sums[BEFORE, neighbour, NEXT] >= 0:
            pool[sums[BEFORE, neighbour, NEXT]] = at - lengths[neighbour]
            sums[BEFORE, neighbour, NEXT] += 1
        neighbour = symbols[at + lengths[token]]
        if sums[AFTER, neighbour, NEXT] >= 0:
            pool[sums[AFTER, neighbour, NEXT]] = at
            sums[AFTER, neighbour, NEXT] += 1


@kernel
def lose(index, pairs, merge, sums, seen):
    """Lower the counts of the pairs that a merge broke, and forget the tallies."""
    left, right, _ = merge
    for place in range(1, seen[BEFORE, 0] + 1):
        neighbour = seen[BEFORE, place]
        number = index[slot_of(index, pairs, neighbour, left)]
        if number >= 0:
            pairs[number, COUNT] -= sums[BEFORE, neighbour, TIMES]
    for place in range(1, seen[LOST, 0] + 1):
        neighbour = seen[LOST, place]
        number = index[slot_of(index, pairs, right, neighbour)]
        if number >= 0:
            pairs[number, COUNT] -= sums[LOST, neighbour, TIMES]
    for side in range(3):
        for place in range(1, seen[side, 0] + 1):
            sums[side, seen[side, place]] = 0
        seen[side, 0] = 0


@kernel
def enlist(index, heap, entries, pairs, spelling, start, size, floor):
    """Put the pairs from `start` on into the index, and the frequent into the heap."""
    for number in range(start, size):
        left, right = pairs[number, LEFT], pairs[number, RIGHT]
        index[slot_of(index, pairs, left, right)] = number
        if pairs[number, COUNT] >= floor:
            heap[entries, 0], heap[entries, 1] = pairs[number, COUNT], number
            rise(heap, pairs, spelling, entries)
            entries += 1
    return entries


@kernel
def highest(pairs, size):
    """The largest count of a pair; 0 if there is none."""
    most = 0
    for number in range(size):
        most = max(most, pairs[number, COUNT])
    return most


@kernel
def learn(text, spelling, pool, sums, seen, merges):
    """Fill `merges`, as far as there are pairs; gives how many there are."""
    lengths, where, made, entries, floor = text[2], spelling[1], 0, 0, 0
    index, pairs, size = survey(text)
    used, heap = 0, longer(pairs)
    while made < len(merges):
        if entries == 0:
            index, pairs, size = survey(text)
            if size == 0:
                break
            floor = max(1, highest(pairs, size) // SHARE)
            used = gather(text, index, pairs, size, floor, pool)
            heap = np.empty((pairs.shape[0], 2), np.int64)
            entries = enlist(index, heap, entries, pairs, spelling, 0, size, floor)
        number = heap[0, 1]
        times = pairs[number, COUNT]
        if times != heap[0, 0] or times < floor:
            if times < floor:
                entries -= 1
                swap(heap, 0, entries)
            else:
                heap[0, 0] = times
            sink(heap, pairs, spelling, entries)
            continue
        merge = (pairs[number, LEFT], pairs[number, RIGHT], 256 + made)
        merges[made, 0], merges[made, 1] = merge[0], merge[1]
        lengths[merge[2]] = lengths[merge[0]] + lengths[merge[1]]
        places = pool[pairs[number, FIRST] :][: pairs[number, SIZE]]
        places = places[: join(text, places, merge, sums, seen)]
        where[merge[2]] = places[0]
        while size + seen[BEFORE, 0] + seen[AFTER, 0] > pairs.shape[0]:
            pairs, heap = longer(pairs), longer(heap)
        start = size
        size, used = bear(text, merge, sums, seen, pairs, size, floor, used)
        note(text, places, merge, sums, pool)
        while 2 * size > len(index):
            index = wider(index, pairs, start)
        entries = enlist(index, heap, entries, pairs, spelling, start, size, floor)
        lose(index, pairs, merge, sums, seen)
        pairs[number, COUNT] = 0
        made += 1
    return made
