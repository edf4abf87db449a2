"""The compiled scanner and encoder: find pieces in UTF-8, count them, give their ids.

`any_piece` cuts as the pattern says, character by character. `piece_end` does the same
sooner: most text is ASCII, where many bytes are marked at a time, and a piece ends at
the next mark. After a text come bytes that no UTF-8 has (END_MARK), so that nothing
runs past its end.
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
from cort33x_lib.text.compiled_table import find, insert, key_of, merge_bytes
from cort33x_lib.text.patterns import DIGIT, LETTER, NO_CLASS, SPACE, SYMBOL, Pattern

END_MARK = b"\xff" * 128
BLOCK = 1 << 13  # bytes marked at a time
NEW_LINE, RETURN, BLANK, TAB, QUOTE, UNDERSCORE = b"\n\r \t'_"


def scanner_of(pattern: Pattern) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """What the kernels need of a pattern, and the arrays at the addresses in it."""
    classes = np.frombuffer(pattern.classes, np.uint8)
    rare = np.arange(256) > 127  # first bytes of pieces that the marks do not tell
    rare[48:58] = True  # digits, for their number
    rare[QUOTE] = pattern.contractions
    rare[UNDERSCORE] = pattern.underscores
    rare[[NEW_LINE, RETURN]] = pattern.indentation
    parts = (pattern.digits, pattern.contractions, pattern.underscores)
    parts += (pattern.indentation, pattern.published)
    address = (classes.ctypes.data, rare.ctypes.data)
    return (*address, *map(int, parts)), [classes, rare]


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


@kernel
def run(classes, at, kind, most):
    """The end of a run of at most `most` characters of one class."""
    while most > 0:
        found, size = character(classes, at)
        if found != kind:
            break
        at += size
        most -= 1
    return at


@kernel
def contraction(classes, published, at):
    """The end of a contraction that starts with the quote at an address, or 0."""
    letter, after = load_byte(at + 1), 0
    if letter == 115 or letter == 100 or letter == 109 or letter == 116:  # s d m t
        after = at + 2
    else:
        pair = letter << 8 | load_byte(at + 2)
        if pair == 0x6C6C or pair == 0x7265 or pair == 0x7665:  # ll re ve
            after = at + 3
    if after and not published and character(classes, after)[0] == LETTER:
        return 0
    return after


@kernel
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


@kernel
def any_piece(scanner, at):
    """The end of the piece that starts at an address, as the pattern cuts it."""
    classes, _, digits, contractions, underscores, indentation, published = scanner
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
        after = contraction(classes, published, at)
        if after:
            return after
    if kind == LETTER or kind == SYMBOL:
        return run(classes, at, kind, 64)
    if kind == SPACE:
        return blanks(classes, at, indentation)
    if kind == DIGIT:
        return run(classes, at, kind, 64 if published else digits)
    return at + size


@inlined
def is_letter(byte):
    """Whether a byte is an ASCII letter."""
    return ((byte >= 97) & (byte <= 122)) | ((byte >= 65) & (byte <= 90))


@inlined
def is_blank(byte):
    """Whether a byte is ASCII white space."""
    return (byte == BLANK) | ((byte >= 9) & (byte <= 13))


@kernel
def mark(text, marks, published):
    """Set the top bit where a piece of ASCII starts, and of all that is not ASCII.

    A piece starts where the class changes, unless the space before leads it in, and at
    the white space that is last before something else. Without a branch, so that the
    compiler does many bytes at a time.
    """
    for place in range(1, len(text) - 1):
        last, byte, following = text[place - 1], text[place], text[place + 1]
        digit, digit_last = (byte >= 48) & (byte <= 57), (last >= 48) & (last <= 57)
        change = (is_letter(last) != is_letter(byte)) | (digit_last != digit)
        change |= is_blank(last) != is_blank(byte)
        led = (last == BLANK) & (not is_blank(byte)) & ((not digit) | published)
        ending = is_blank(byte) & (not is_blank(following)) & (following < 128)
        start = (change & (not led)) | ending | (byte >= 128)
        marks[place] = 128 if start else 0


@inlined
def piece_end(scanner, at, marks):
    """The same end, sooner: the next mark, except where more is to be looked at."""
    if load_byte(scanner[1] + load_byte(at)):
        return any_piece(scanner, at)
    after, found = at + 1, zeros_below(load_word(marks + 1)) >> 3
    while found == 8 and after < at + 64:
        after, marks = after + 8, marks + 8
        found = zeros_below(load_word(marks + 1)) >> 3
    after += found
    if after - at > 64 or load_byte(after) > 127:
        return any_piece(scanner, at)
    return after


@kernel
def count_pieces(scanner, text, marks, at, end, table, used, most):
    """Count the pieces of two bytes or more; gives where it stopped to get room."""
    while at < end and used[0] < most[0] and used[1] < most[1]:
        stop, shift = min(at + BLOCK, end), marks.ctypes.data - at
        mark(text[at - text.ctypes.data :][: BLOCK + 99], marks, scanner[6] > 0)
        while at < stop and used[0] < most[0] and used[1] < most[1]:
            after = piece_end(scanner, at, at + shift)
            if after - at > 1:
                first, second = key_of(at, after - at)
                slot = find(table, first, second, at)
                if load_word(slot + 8) == np.uint64(0):
                    insert(table, slot, first, second, at, used)
                store_word(slot + 16, load_word(slot + 16) + np.uint64(1))
            at = after
    return at


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
def encode_pieces(
    scanner, text, marks, at, end, table, ranks, kept, scratch, used, most, out
):
    """Write the ids of the pieces to an address; gives where it stopped, and there.

    It stops at the end, or at a new piece when the table has no room.
    """
    stop = shift = at
    while at < end:
        if at >= stop:
            stop, shift = min(at + BLOCK, end), marks.ctypes.data - at
            mark(text[at - text.ctypes.data :][: BLOCK + 99], marks, scanner[6] > 0)
        after = piece_end(scanner, at, at + shift)
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
        at, out = after, out + 4 * count
    return at, out
