"""The compiled scanner and encoder: find pieces in UTF-8, count them, give their ids.

After a text come 16 bytes that no UTF-8 has (END_MARK): every run stops there. Kernels
that call one another are all in this file, as numba recompiles a file that changed, but
not another that uses it.
"""

import numpy as np

from cort33x_lib.text.compiled_memory import (
    inlined,
    kernel,
    load_byte,
    load_half,
    load_word,
    store_half,
    store_word,
    zeros_below,
)
from cort33x_lib.text.compiled_table import MIX, find, insert, key_of
from cort33x_lib.text.patterns import DIGIT, LETTER, NO_CLASS, SPACE, SYMBOL, Pattern

END_MARK = b"\xff" * 16
EACH = np.uint64(0x0101010101010101)  # times a byte: that byte, eight times
NEW_LINE, RETURN, BLANK, TAB, QUOTE, UNDERSCORE = b"\n\r \t'_"
NEVER = 1 << 40  # above every id


def scanner_of(pattern: Pattern, classes: np.ndarray) -> tuple[int, ...]:
    """What the kernels need of a pattern; `classes` is its table as an array."""
    return (
        classes.ctypes.data,
        pattern.digits,
        int(pattern.contractions),
        int(pattern.underscores),
        int(pattern.indentation),
        int(pattern.published),
    )


@kernel
def wide_character(classes, at):
    """Class and bytes of a character beyond ASCII; no class if it is not UTF-8."""
    first = load_byte(at)
    if first < 0xC2 or first > 0xF4:
        return NO_CLASS, 1
    size = 2 + (first >= 0xE0) + (first >= 0xF0)
    point = first & (0x7F >> size)
    for place in range(1, size):
        byte = load_byte(at + place)
        if byte & 0xC0 != 0x80:
            return NO_CLASS, 1
        point = point << 6 | byte & 0x3F
    if point < (0, 0, 0x80, 0x800, 0x10000)[size] or point > 0x10FFFF:
        return NO_CLASS, 1
    kind = load_byte(classes + point)
    return kind, size if kind else 1


@inlined
def character(classes, at):
    """Class and bytes of the character at an address."""
    first = load_byte(at)
    if first < 0x80:
        return load_byte(classes + first), 1
    return wide_character(classes, at)


@inlined
def leading_letters(word):
    """How many of eight bytes are ASCII letters, up to the first that is none.

    Both sums are of all eight bytes at once: the top bit of each tells its side.
    """
    low = (word | EACH * np.uint64(0x20)) & EACH * np.uint64(0x7F)
    letters = (low + EACH * np.uint64(0x1F)) & ~(low + EACH * np.uint64(0x05)) & ~word
    return zeros_below(~letters & EACH * np.uint64(0x80)) >> 3


@inlined
def run(classes, at, kind, most):
    """The end of a run of at most `most` characters of one class."""
    while kind == LETTER and most >= 8:
        found = leading_letters(load_word(at))
        at += found
        most -= found
        if found < 8:
            break
    while most > 0:
        if kind == SPACE and most >= 8 and load_word(at) == EACH * np.uint64(BLANK):
            at += 8
            most -= 8
            continue
        found, size = character(classes, at)
        if found != kind:
            break
        at += size
        most -= 1
    return at


@kernel
def contraction(scanner, at):
    """The end of a contraction that starts with the quote at an address, or 0."""
    letter, after = load_byte(at + 1), 0
    if letter == 115 or letter == 100 or letter == 109 or letter == 116:  # s d m t
        after = at + 2
    else:
        pair = letter << 8 | load_byte(at + 2)
        if pair == 0x6C6C or pair == 0x7265 or pair == 0x7665:  # ll re ve
            after = at + 3
    published = scanner[5]
    if after and not published and character(scanner[0], after)[0] == LETTER:
        return 0
    return after


@inlined
def blanks(classes, at, indentation):
    """The end of white space: all but the last character before something else."""
    after, first = at, load_byte(at)
    if indentation and (first == NEW_LINE or first == RETURN):
        while after < at + 16 and load_byte(after) in (NEW_LINE, RETURN):
            after += 1
        at = after
        while after < at + 48 and load_byte(after) in (BLANK, TAB):
            after += 1
        return after
    after = run(classes, at, SPACE, 64)
    following, _ = character(classes, after)
    if following == SPACE or following == NO_CLASS:
        return after
    last = after - 1
    while load_byte(last) & 0xC0 == 0x80:
        last -= 1
    return after if last == at else last


@inlined
def piece_end(scanner, at):
    """The end of the piece that starts at an address, as the pattern cuts it."""
    classes, digits, contractions, underscores, indentation, published = scanner
    first = load_byte(at)
    kind, size = character(classes, at)
    if first == BLANK or (underscores and first == UNDERSCORE):
        following, _ = character(classes, at + 1)
        if following == LETTER or (
            first == BLANK
            and (following == SYMBOL or (published and following == DIGIT))
        ):
            kind = following
            at += 1
    elif contractions and first == QUOTE:
        after = contraction(scanner, at)
        if after:
            return after
    if kind == LETTER:
        return run(classes, at, LETTER, 64)
    if kind == SYMBOL:
        return run(classes, at, SYMBOL, 64)
    if kind == SPACE:
        return blanks(classes, at, indentation)
    if kind == DIGIT:
        return run(classes, at, DIGIT, 64 if published else digits)
    return at + size


@kernel
def count_pieces(scanner, at, end, table, used, most):
    """Count the pieces of two bytes or more; gives where it stopped to get room."""
    while at < end and used[0] < most[0] and used[1] < most[1]:
        after = piece_end(scanner, at)
        if after - at > 1:
            first, second = key_of(at, after - at)
            slot = find(table, first, second, at)
            if load_word(slot + 8) == np.uint64(0):
                insert(table, slot, first, second, at, used)
            store_word(slot + 16, load_word(slot + 16) + np.uint64(1))
        at = after
    return at


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


@kernel
def keep_ids(slot, ids, count, kept, used):
    """Write the ids of a piece into its slot: two fit there, more go to `kept`."""
    store_word(slot + 24, load_word(slot + 24) | np.uint64(count))
    if count <= 2:
        high = np.uint64(ids[1]) << np.uint64(32) if count == 2 else np.uint64(0)
        store_word(slot + 16, np.uint64(ids[0]) | high)
        return
    store_word(slot + 16, np.uint64(kept + 4 * used[2]))
    for place in range(count):
        store_half(kept + 4 * (used[2] + place), np.uint64(ids[place]))
    used[2] += count


@kernel
def encode_pieces(scanner, at, end, table, ranks, kept, scratch, used, most, out):
    """Write the ids of the pieces to an address; gives where it stopped, and there.

    It stops at the end, or at a new piece when the table has no room.
    """
    while at < end:
        after = piece_end(scanner, at)
        if after == at + 1:  # a byte is its own id
            store_half(out, np.uint64(load_byte(at)))
            at, out = after, out + 4
            continue
        first, second = key_of(at, after - at)
        slot = find(table, first, second, at)
        if load_word(slot + 8) == np.uint64(0):
            if used[0] >= most[0] or used[1] >= most[1] or used[2] >= most[2]:
                break
            insert(table, slot, first, second, at, used)
            count = merge_bytes(at, after - at, ranks, scratch[0], scratch[1])
            keep_ids(slot, scratch[0], count, kept, used)
        ids, count = load_word(slot + 16), load_half(slot + 24) & 0xFFFF
        if count <= 2:
            store_word(out, ids)
        else:
            for place in range(0, 4 * count, 4):
                store_half(out + place, np.uint64(load_half(np.int64(ids) + place)))
        out += 4 * count
        at = after
    return at, out
