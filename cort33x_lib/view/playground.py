"""The tokenizer's playground: type text, see its tokens, go through the merges."""

from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import Tokenizer


class TokenizerPlayground(anywidget.AnyWidget):
    """A text to type into, its tokens, and a slider from no merge to all of them.

    The browser computes everything, so it works without a kernel too. It gets all
    merges: a tokenizer of a few thousand loads fast, one of 50,000 does not. `ids`
    holds what the browser computed last, for the text and the merges in use.
    """

    _esm = Path(__file__).with_name("playground.js")
    _css = Path(__file__).with_name("playground.css")
    text = traitlets.Unicode().tag(sync=True)
    used = traitlets.Int().tag(sync=True)  # merges in use, the first of all
    ids = traitlets.List().tag(sync=True)
    merges = traitlets.List().tag(sync=True)  # [left id, right id], in order
    expression = traitlets.Unicode().tag(sync=True)  # what cuts text into pieces

    def __init__(self, tokenizer: Tokenizer, text: str):
        super().__init__(
            text=text,
            used=len(tokenizer.merges),
            merges=[[left, right] for left, right in tokenizer.merges],
            expression=PATTERNS[tokenizer.pattern].expression,
        )
