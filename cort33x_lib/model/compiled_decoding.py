"""One token through a layer, compiled by numba: vectors, and each weight read once.

A matrix has a scale for each row, which is 1 for float32; B rows of a batch share the
reading. Cores share the rows of a matrix, and the heads of keys and values.
"""

import numpy as np
from numba import njit, prange

SUMS = {"reassoc", "contract", "nsz"}  # in any order; infinities stay what they are
SERIAL = dict(cache=True, nogil=True, fastmath=SUMS, error_model="numpy")
SHARED = SERIAL | {"parallel": True}
NOTHING = np.float32(0)


@njit(**SHARED)
def multiply_rows(
    x: np.ndarray, numbers: np.ndarray, scales: np.ndarray, product: np.ndarray
) -> None:
    """Write x @ (numbers * scales).T: (B, K), (N, K), (N,), (B, N).

    Each row of the matrix is read once, and int8 is widened in registers. Four rows at
    once keep more of the memory's answers under way; where fewer are left, the last is
    read again.
    """
    last = len(numbers) - 1
    for block in prange((len(numbers) + 3) // 4):
        a = 4 * block
        b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
        for place in range(len(x)):
            sum_a, sum_b, sum_c, sum_d = NOTHING, NOTHING, NOTHING, NOTHING
            for k in range(numbers.shape[1]):
                given = x[place, k]
                sum_a += np.float32(numbers[a, k]) * given
                sum_b += np.float32(numbers[b, k]) * given
                sum_c += np.float32(numbers[c, k]) * given
                sum_d += np.float32(numbers[d, k]) * given
            product[place, a] = sum_a * scales[a]
            product[place, b] = sum_b * scales[b]
            product[place, c] = sum_c * scales[c]
            product[place, d] = sum_d * scales[d]


@njit(**SERIAL)
def norm_into(x: np.ndarray, gain: np.ndarray, result: np.ndarray) -> None:
    """Write x at root mean square one, times the gains: (C,), (C,), (C,)."""
    total = np.float32(0)
    for c in range(len(x)):
        total += x[c] * x[c]
    mean = total / np.float32(len(x)) + np.finfo(np.float32).eps
    scale = np.float32(1) / np.sqrt(np.float32(mean))
    for c in range(len(x)):
        result[c] = x[c] * scale * gain[c]


@njit(**SERIAL)
def turn(x: np.ndarray, angles: np.ndarray) -> None:
    """Rotate the channel pairs of one head in place: (D,), (2, D/2)."""
    half = len(x) // 2
    for c in range(half):
        left, right = x[c], x[c + half]
        x[c] = left * angles[0, c] - right * angles[1, c]
        x[c + half] = right * angles[0, c] + left * angles[1, c]


@njit(**SERIAL)
def attend_slots(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    first: int,
    sink: float,
    read: np.ndarray,
) -> None:
    """Write what one query reads of the slots from `first` on.

    (D,), two of (W, D), the score of reading nothing, (D,)
    """
    W, D = keys.shape
    weights, largest = np.empty(W, np.float32), np.float32(sink)
    scale = np.float32(1) / np.sqrt(np.float32(D))
    for slot in range(first, W):
        score = np.float32(0)
        for c in range(D):
            score += query[c] * keys[slot, c]
        weights[slot] = score * scale
        largest = max(largest, weights[slot])
    total = np.exp(np.float32(sink) - largest)
    for c in range(D):
        read[c] = 0
    for slot in range(first, W):
        weight = np.exp(weights[slot] - largest)
        total += weight
        for c in range(D):
            read[c] += weight * values[slot, c]
    for c in range(D):
        read[c] /= total


@njit(**SERIAL)
def attend_group(
    group: int,
    heads: np.ndarray,
    position: int,
    angles: np.ndarray,
    gains: tuple,
    sinks: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    read: np.ndarray,
) -> None:
    """Write what the heads of a group read, its new key and value among the others.

    (H + 2 G, D), (2, D/2), two of (D,), (H,), two of (W, D), (H, D). Token p lies in
    slot -1 - p modulo W, so that a ring fills from its end.
    """
    (H, D), W = read.shape, len(keys)
    G = (len(heads) - H) // 2
    newest, first = (-1 - position) % W, max(W - 1 - position, 0)
    norm_into(heads[H + group], gains[1], keys[newest])
    turn(keys[newest], angles)
    for c in range(D):
        values[newest, c] = heads[H + G + group, c]
    for head in range(group * (H // G), (group + 1) * (H // G)):
        norm_into(heads[head], gains[0], heads[head])
        turn(heads[head], angles)
        attend_slots(heads[head], keys, values, first, sinks[head], read[head])


@njit(**SHARED)
def attend_rings(
    heads: np.ndarray,
    positions: np.ndarray,
    angles: np.ndarray,
    gains: tuple,
    sinks: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    read: np.ndarray,
) -> None:
    """`attend_group` for all groups of all rows, two of (B, G, W, D) their rings."""
    G = keys.shape[1]
    for task in prange(len(heads) * G):
        row, group = task // G, task % G
        attend_group(
            group, heads[row], positions[row], angles[row], gains, sinks,
            keys[row, group], values[row, group], read[row],
        )  # fmt: skip


@njit(**SERIAL)
def read_layer(
    x: np.ndarray,
    first: np.ndarray,
    positions: np.ndarray,
    angles: np.ndarray,
    shares: np.ndarray,
    gains: tuple,
    matrices: tuple,
    sinks: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
) -> None:
    """Take one token of each row through a layer, in place: (B, C), (B, C) embeddings.

    `shares` (2,) mix them, `gains` are those of the two norms, of queries and of keys,
    `matrices` have their scales beside them.
    """
    into, into_scales, out, out_scales, widen, widen_scales, narrow, narrow_scales = (
        matrices
    )
    (B, C), (G, _, D) = x.shape, keys.shape[1:]
    H = len(into) // D - 2 * G
    made, middle = np.empty_like(x), np.empty((B, len(widen)), np.float32)
    heads = np.empty((B, H + 2 * G, D), np.float32)
    read = np.empty((B, H, D), np.float32)
    for row in range(B):
        for c in range(C):
            x[row, c] = shares[0] * x[row, c] + shares[1] * first[row, c]
        norm_into(x[row], gains[0], made[row])
    multiply_rows(made, into, into_scales, heads.reshape(B, -1))
    attend_rings(heads, positions, angles, gains[2:], sinks, keys, values, read)
    multiply_rows(read.reshape(B, -1), out, out_scales, made)
    for row in range(B):
        for c in range(C):
            x[row, c] += made[row, c]
        norm_into(x[row], gains[1], made[row])
    multiply_rows(made, widen, widen_scales, middle)
    for row in range(B):
        for c in range(len(widen)):
            middle[row, c] = max(middle[row, c], np.float32(0)) ** 2
    multiply_rows(middle, narrow, narrow_scales, made)
    for row in range(B):
        for c in range(C):
            x[row, c] += made[row, c]


@njit(**SERIAL)
def read_logits(
    x: np.ndarray, gain: np.ndarray, matrix: tuple, logits: np.ndarray
) -> None:
    """Write what follows the last layer: (B, C), (C,), (V, C) and (V,), (B, V)."""
    made = np.empty_like(x)
    for row in range(len(x)):
        norm_into(x[row], gain, made[row])
    multiply_rows(made, matrix[0], matrix[1], logits)
