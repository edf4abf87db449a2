"""Pairs of tokens for the compiled trainer: counted, found by an index, put in a heap.

An entry of the heap has the count a pair had when it was entered, and the pair's
number. numba does not see a change of this file: after one, delete `__pycache__`.
"""

import numpy as np

from cort33x_lib.text.compiled_memory import inlined, kernel

LEFT, RIGHT, COUNT, FIRST, SIZE = range(5)  # columns of `pairs`


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
    for column in range(2):
        kept = heap[one, column]
        heap[one, column], heap[other, column] = heap[other, column], kept


@kernel
def rise(heap, pairs, spelling, place):
    """Move an entry up past all that it is ahead of."""
    while place > 0:
        above = (place - 1) // 2
        if not ahead(heap, pairs, spelling, place, above):
            break
        swap(heap, place, above)
        place = above


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
def unused(size):
    """An index without any pair."""
    index = np.empty(size, np.int32)
    for slot in range(size):
        index[slot] = -1
    return index


@kernel
def wider(index, pairs, size):
    """An index twice as large, of the first `size` pairs."""
    index = unused(2 * len(index))
    for number in range(size):
        index[slot_of(index, pairs, pairs[number, LEFT], pairs[number, RIGHT])] = number
    return index


@kernel
def longer(array):
    """The same rows, and as many again."""
    grown = np.empty((2 * array.shape[0], array.shape[1]), np.int64)
    for row in range(array.shape[0]):
        for column in range(array.shape[1]):
            grown[row, column] = array[row, column]
    return grown


@kernel
def count_pairs(text, at, index, pairs, size):
    """Count pairs of neighbours from a slot on, until `pairs` is full or all is done.

    Gives the slot where it stopped and how many pairs there are.
    """
    symbols, weights, lengths, apart = text
    while at < len(symbols) - 1 and size < len(pairs):
        left = symbols[at]
        after = at + lengths[left]
        right = symbols[after]
        if left != apart and right != apart:
            slot = slot_of(index, pairs, left, right)
            number = index[slot]
            if number < 0:
                number = size
                index[slot] = number
                pairs[number, LEFT], pairs[number, RIGHT] = left, right
                pairs[number, COUNT], pairs[number, SIZE] = 0, 0
                size += 1
            pairs[number, COUNT] += weights[at]
            pairs[number, SIZE] += 1
        at = after
    return at, size


@kernel
def survey(text):
    """Every pair of neighbours with its count: index, pairs and how many there are."""
    index, pairs = unused(1 << 16), np.empty((1 << 15, 5), np.int64)
    at, size = count_pairs(text, 1, index, pairs, 0)
    while size == len(pairs):
        pairs, index = longer(pairs), wider(index, pairs, size)
        at, size = count_pairs(text, at, index, pairs, size)
    return index, pairs, size


@kernel
def gather(text, index, pairs, size, floor, pool):
    """Note the places of every pair that the floor keeps; gives how many places."""
    symbols, _, lengths, apart = text
    used = 0
    for number in range(size):
        pairs[number, FIRST] = used
        if pairs[number, COUNT] >= floor:
            used += pairs[number, SIZE]
        pairs[number, SIZE] = 0
    at = 1
    while at < len(symbols) - 1:
        left = symbols[at]
        after = at + lengths[left]
        right = symbols[after]
        if left != apart and right != apart:
            number = index[slot_of(index, pairs, left, right)]
            if pairs[number, COUNT] >= floor:
                pool[pairs[number, FIRST] + pairs[number, SIZE]] = at
                pairs[number, SIZE] += 1
        at = after
    return used
