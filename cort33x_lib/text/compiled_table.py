"""Tables in memory for compiled kernels: of pieces, and of the pairs that merge.

In a table of pieces a slot has four words: two of key, then two of value. A piece of at
most 15 bytes is its own key; a longer one is hashed, and compared in full with bytes
kept apart. Such a table is passed as three numbers: the address of its slots, how many
there are (the power of two), and the address of those bytes.
"""

import numpy as np

from cort33x_lib.text.compiled_memory import (
    inlined,
    kernel,
    load_byte,
    load_word,
    store_word,
)

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, and far from any pattern in text
LENGTH = np.uint64(56)  # where in the second word of a key the length is
NEVER = 1 << 40  # above every id
LONG = np.uint64(0xFF)  # the length there of a piece that is no key of its own


@kernel
def long_key(at, length):
    """A hash of a piece of 16 bytes or more, and a word with its length."""
    mixed = np.uint64(length)
    for place in range(at, at + length - 8, 8):
        mixed = (mixed ^ load_word(place)) * MIX
        mixed ^= mixed >> np.uint64(32)
    mixed = (mixed ^ load_word(at + length - 8)) * MIX
    return mixed ^ mixed >> np.uint64(32), LONG << LENGTH | np.uint64(length)


@inlined
def key_of(at, length):
    """The two words that are the key of a piece."""
    first = load_word(at)
    if length <= 8:
        return first & ALL >> np.uint64(64 - 8 * length), np.uint64(length) << LENGTH
    if length > 15:
        return long_key(at, length)
    rest = load_word(at + 8) & ALL >> np.uint64(128 - 8 * length)
    return first, rest | np.uint64(length) << LENGTH


@kernel
def same_bytes(left, right, length):
    """Whether the bytes at two addresses are the same."""
    for place in range(length):
        if load_byte(left + place) != load_byte(right + place):
            return False
    return True


@inlined
def find(table, first, second, at):
    """The address of the slot with a key, or of the empty one where it belongs."""
    slots, bits, texts = table
    place = np.int64((first ^ second * MIX) * MIX >> np.uint64(64 - bits))
    while True:
        slot = slots + 32 * place
        found = load_word(slot + 8)
        if found == np.uint64(0):
            return slot
        if found == second and load_word(slot) == first:
            if second >> LENGTH != LONG:
                return slot
            stored = texts + np.int64(load_word(slot + 24) >> np.uint64(16))
            if same_bytes(stored, at, np.int64(second & np.uint64(0xFFFF))):
                return slot
        place = (place + 1) & ((1 << bits) - 1)


@kernel
def insert(table, slot, first, second, at, used):
    """Fill an empty slot with a key; the bytes of a long piece go to the texts."""
    store_word(slot, first)
    store_word(slot + 8, second)
    used[0] += 1
    if second >> LENGTH == LONG:
        store_word(slot + 24, np.uint64(used[1]) << np.uint64(16))
        length = np.int64(second & np.uint64(0xFFFF))
        for place in range(0, length, 8):
            store_word(table[2] + used[1] + place, load_word(at + place))
        used[1] += length


@kernel
def move(old, table, used):
    """Add every piece of one table, with its count, to another with room for them."""
    for slot in range(old[0], old[0] + (32 << old[1]), 32):
        first, second = load_word(slot), load_word(slot + 8)
        if second:
            at = old[2] + np.int64(load_word(slot + 24) >> np.uint64(16))
            found = find(table, first, second, at)
            if load_word(found + 8) == np.uint64(0):
                insert(table, found, first, second, at, used)
            store_word(found + 16, load_word(found + 16) + load_word(slot + 16))


@kernel
def spread(table, data, weights):
    """Lay all pieces end to end after 257 slots, if there is room; gives the size."""
    slots, bits, texts = table
    used = 257
    for slot in range(slots, slots + (32 << bits), 32):
        length = np.int64(load_word(slot + 8) >> LENGTH)
        start = slot
        if length == np.int64(LONG):
            length = np.int64(load_word(slot + 8) & np.uint64(0xFFFF))
            start = texts + np.int64(load_word(slot + 24) >> np.uint64(16))
        if used + length < len(data):
            for place in range(length):
                data[used + place] = load_byte(start + place)
                weights[used + place] = load_word(slot + 16)
        used += length + (length > 0)
    return used


@inlined
def made_by(ranks, left, right):
    """The id that two ids make; NEVER if they make none."""
    slots, bits = ranks
    pair = np.uint64(left) << np.uint64(32) | np.uint64(right)
    place = np.int64(pair * MIX >> np.uint64(64 - bits))
    while True:
        made = load_word(slots + 16 * place + 8)
        if made == np.uint64(0):
            return NEVER
        if load_word(slots + 16 * place) == pair:
            return np.int64(made)
        place = (place + 1) & ((1 << bits) - 1)


@kernel
def fill_ranks(slots, merges):
    """Put merges (n, 2) into empty slots (a power of two, 2): a pair and its id."""
    mask = np.uint64(len(slots) - 1)
    shift = np.uint64(64) - np.uint64(np.log2(len(slots)))
    for number in range(len(merges)):
        left, right = np.uint64(merges[number, 0]), np.uint64(merges[number, 1])
        pair = left << np.uint64(32) | right
        place = pair * MIX >> shift
        while slots[place, 1]:
            place = (place + np.uint64(1)) & mask
        slots[place, 0], slots[place, 1] = pair, np.uint64(256 + number)


@kernel
def merge_bytes(at, length, ranks, ids, made):
    """Fill `ids` for a piece: join the pair learnt first, the leftmost first."""
    for place in range(length):
        ids[place] = load_byte(at + place)
    for place in range(length - 1):
        made[place] = made_by(ranks, ids[place], ids[place + 1])
    while length > 1:
        best = 0
        for place in range(1, length - 1):
            if made[place] < made[best]:
                best = place
        if made[best] == NEVER:
            break
        ids[best] = made[best]
        length -= 1
        for place in range(best + 1, length):
            ids[place] = ids[place + 1]
            made[place - 1] = made[place]
        if best > 0:
            made[best - 1] = made_by(ranks, ids[best - 1], ids[best])
        if best < length - 1:
            made[best] = made_by(ranks, ids[best], ids[best + 1])
    return length
