"""A corpus is a list of documents that says where each came from.

Chosen: one small class for a document, a split that never divides a unit, a manifest
with a SHA-256 per document and one fingerprint for the whole, and a corpus everybody
has: the sources of the reader's own Python. Left out: cleaning, downloads, and corpora
larger than memory.
"""

from dataclasses import dataclass

from cort33x_lib.files import digest


class CorpusError(ValueError):
    """A corpus that cannot be used: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Document:
    """One text, with the unit that no split may divide, its origin and its licence.

    Raises CorpusError for a field that is not text or that UTF-8 cannot write.
    """

    text: str
    unit: str
    origin: str
    licence: str

    def __post_init__(self) -> None:
        for name in ("text", "unit", "origin", "licence"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise CorpusError(f"{name} must be text, got {type(value).__name__}")
            if not value.isascii():
                _refuse_surrogates(name, value, self.origin)

    @property
    def data(self) -> bytes:
        """The text as UTF-8 bytes."""
        return self.text.encode("utf-8")

    @property
    def nbytes(self) -> int:
        """The length of the text in UTF-8 bytes."""
        return len(self.data)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the text as UTF-8 bytes."""
        return digest(self.data)


def _refuse_surrogates(name: str, value: str, origin: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"U+{ord(value[error.start]):04X} at character {error.start}"
        raise CorpusError(
            f"{ascii(origin)}: {name} holds the lone surrogate {found};"
            " decode the source again with the right encoding"
        ) from None
