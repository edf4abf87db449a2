"""Learning merges from counted pieces, and applying them to one piece, in plain Python.

Byte pair encoding (Sennrich, Haddow and Birch 2016) on bytes, as in Radford et al.
2019: the most frequent pair of neighbours becomes a token, again and again. A tie goes
to the pair whose bytes come first, so the merges depend on nothing but the counts.

`naive_merges` is the definition, `counted_merges` the same merges sooner. Left out: a
corpus of many megabytes, for which `compiled_training` gives the same merges.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

BYTES = tuple(bytes([value]) for value in range(256))
Pair = tuple[int, int]


def naive_merges(pieces: Mapping[bytes, int], count: int) -> list[Pair]:
    """At most `count` merges of pairs inside pieces, everything counted for each.

    `pieces` gives how often each piece occurs. The n-th merge makes the id 256 + n.
    """
    tokens, merges = list(BYTES), []
    words = [(list(piece), times) for piece, times in pieces.items()]
    while len(merges) < count:
        counts: Counter[Pair] = Counter()
        for word, times in words:
            for pair in pairwise(word):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda p: (-counts[p], tokens[p[0]], tokens[p[1]]))
        words = [(joined(word, best, len(tokens)), times) for word, times in words]
        tokens.append(tokens[best[0]] + tokens[best[1]])
        merges.append(best)
    return merges


def joined(word: list[int], pair: Pair, new: int) -> list[int]:
    """The word with `new` for every `pair` of neighbours, leftmost first."""
    out: list[int] = []
    for id in word:
        if out and (out[-1], id) == pair:
            out[-1] = new
        else:
            out.append(id)
    return out


def counted_merges(pieces: Mapping[bytes, int], count: int) -> list[Pair]:
    """The same merges: pairs are counted once, and a merge changes what it touches.

    The heap keeps old entries; one whose count has fallen goes back with the true one.
    """
    tokens, merges = list(BYTES), []
    words, times = [list(piece) for piece in pieces], list(pieces.values())
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for place, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += times[place]
            places[pair].add(place)

    def entry(pair: Pair) -> tuple[int, bytes, bytes, Pair]:
        return -counts[pair], tokens[pair[0]], tokens[pair[1]], pair

    heap = [entry(pair) for pair in counts]
    heapq.heapify(heap)
    while heap and len(merges) < count:
        known, _, _, best = heapq.heappop(heap)
        if -known != counts[best]:
            if counts[best]:
                heapq.heappush(heap, entry(best))
            continue
        new, born = len(tokens), set()
        for place in places.pop(best):
            before, words[place] = words[place], joined(words[place], best, new)
            for pair in pairwise(before):
                counts[pair] -= times[place]
            for pair in pairwise(words[place]):
                counts[pair] += times[place]
                if new in pair:
                    places[pair].add(place)
                    born.add(pair)
        tokens.append(tokens[best[0]] + tokens[best[1]])
        merges.append(best)
        for pair in born:
            heapq.heappush(heap, entry(pair))
    return merges


def merge_piece(piece: bytes, ranks: Mapping[Pair, int]) -> list[int]:
    """The ids of one piece: always join the pair learnt first, leftmost first.

    `ranks` gives the id that a pair makes; earlier merges have smaller ids.
    """
    never = 256 + len(ranks)
    ids = list(piece)
    made = [ranks.get(pair, never) for pair in pairwise(ids)]
    while made and (new := min(made)) < never:
        at = made.index(new)
        ids[at : at + 2] = [new]
        del made[at]
        if at > 0:
            made[at - 1] = ranks.get((ids[at - 1], new), never)
        if at < len(made):
            made[at] = ranks.get((new, ids[at + 1]), never)
    return ids
