"""Duplicates: the same text again by its SHA-256, nearly the same by MinHash.

Two texts are as similar as the Jaccard index of their shingles, that is, of the runs of
five words in them. The smallest value that a random permutation gives to a set is the
same for two sets with a probability equal to that index (Broder, 1997), so a column of
such minima stands for a document, and documents that agree in a whole band of it are
compared. The permutations are those of datasketch 2.0, so both give equal signatures.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from cort33x_lib.text.cleaning import Answer, Removed
from cort33x_lib.text.corpus import Document

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 5
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing
AT_A_TIME = 2048  # shingles, so that the table of their permutations stays in cache


def exact_duplicates(documents: Sequence[Document]) -> Iterator[Answer]:
    """Each text once: of texts with one SHA-256 the first stays.

    Nothing is normalised: texts that differ in one space are two texts.
    """
    first: dict[str, str] = {}
    for document in documents:
        origin = first.get(document.sha256)
        first.setdefault(document.sha256, document.origin)
        fresh = origin is None
        yield document if fresh else Removed("exact duplicate", f"of {origin}")


def shingles(text: str) -> np.ndarray:
    """The 64-bit hashes of all runs of five lower-case words, sorted, each once.

    () -> (n,) uint64. A text of fewer words has one, a text without words none. The
    hashes are the same in every process and on every machine.
    """
    words = WORD.findall(text.lower())
    codes = {word: crc32(word.encode("utf-8", "surrogatepass")) for word in set(words)}
    row = np.fromiter(map(codes.get, words), np.uint64, len(words))
    length = min(SHINGLE_WORDS, len(words))
    total = np.zeros(len(words) - length + 1 if length else 0, np.uint64)  # (n,)
    for start in range(length):
        total = (total + row[start : start + len(total)]) * FACTOR  # modulo 2**64
    return np.unique(total)


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Shared shingles over all shingles of two documents; 0 where one has none."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(len(first) + len(second) - both, 1) if both else 0.0


def permutations(count: int = 128, seed: int = 1) -> np.ndarray:
    """Multipliers, all odd, and summands of `count` permutations of 32-bit numbers.

    () -> (2, count) uint32.
    """
    random = np.random.RandomState(seed)  # whose numbers no new version may change
    odd = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + 1
    return np.stack([odd, random.randint(0, 1 << 32, count, dtype=np.uint32)])


def mixed(hashes: np.ndarray) -> np.ndarray:
    """32-bit numbers with every bit spread over all others (MurmurHash3's last step).

    (n,) uint32 -> (n,) uint32
    """
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def signature(shingles: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """The smallest value that each permutation gives to the upper half of a shingle.

    (n,) uint64, (2, P) uint32 -> (P,) uint32; all ones where there is no shingle.
    """
    multipliers, summands = permutations
    hashes = mixed((shingles >> np.uint64(32)).astype(np.uint32))  # (n,)
    smallest = np.full(len(multipliers), 0xFFFFFFFF, np.uint32)  # (P,)
    for start in range(0, len(hashes), AT_A_TIME):
        part = hashes[start : start + AT_A_TIME, None]  # (n, 1)
        values = part * multipliers + summands  # (n, P), modulo 2**32
        np.minimum(smallest, values.min(axis=0), out=smallest)
    return smallest


def buckets(signatures: np.ndarray, bands: int, rows: int) -> Iterator[list[int]]:
    """The places, in order, of signatures that agree in a whole band, band by band.

    (N, P) uint32. Raises ValueError when the bands need more than P rows.
    """
    if bands * rows > signatures.shape[1]:
        raise ValueError(
            f"{bands} bands of {rows} need {bands * rows} permutations,"
            f" the signatures have {signatures.shape[1]}"
        )
    for band in range(bands):
        places = defaultdict(list)
        for place, row in enumerate(signatures[:, band * rows : (band + 1) * rows]):
            places[row.tobytes()].append(place)
        yield from places.values()


def chance_found(similarity: float, bands: int, rows: int) -> float:
    """The probability that a pair of this Jaccard index is a candidate."""
    return 1 - (1 - similarity**rows) ** bands


def clusters(
    sets: Sequence[np.ndarray], threshold: float, bands: int, rows: int
) -> list[int]:
    """For each document, given its shingles, the first one of its cluster.

    A cluster is what chains of texts with at least this Jaccard index hold together.
    """
    table = permutations(bands * rows)
    filled = [place for place, shingles in enumerate(sets) if len(shingles)]
    signatures = [signature(sets[place], table) for place in filled]
    signatures = np.reshape(signatures, (len(filled), bands * rows))
    parents, compared = list(range(len(sets))), set()

    def first_of(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    for bucket in buckets(signatures, bands, rows):
        places = [filled[place] for place in bucket]
        for one in places:
            apart = [place for place in places if first_of(place) != first_of(one)]
            if not apart:
                break
            for pair in {(min(one, n), max(one, n)) for n in apart} - compared:
                compared.add(pair)
                if jaccard(sets[pair[0]], sets[pair[1]]) >= threshold:
                    roots = sorted(map(first_of, pair))
                    parents[roots[1]] = roots[0]
    return [first_of(place) for place in range(len(sets))]


@dataclass(frozen=True)
class NearDuplicates:
    """The first of each cluster of texts that are alike.

    Candidates are compared by their shingles, so chance only loses pairs and adds none.
    """

    threshold: float = 0.8
    bands: int = 16
    rows: int = 8

    def __call__(self, documents: Sequence[Document]) -> Iterator[Answer]:
        sets = [shingles(document.text) for document in documents]
        firsts = clusters(sets, self.threshold, self.bands, self.rows)
        for place, first in enumerate(firsts):
            if first == place:
                yield documents[place]
            else:
                similar = jaccard(sets[place], sets[first])
                note = f"J = {similar:.2f} with {documents[first].origin}"
                yield Removed("near duplicate", note)
