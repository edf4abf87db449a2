"""The sampling explorer: what may come next, how it is drawn, and what is written."""

from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.lab.folder import FolderError, read_config, read_weights
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import END, Tokenizer

HERE = Path(__file__).parent


class SamplingExplorer(anywidget.AnyWidget):
    """A prompt to type into, bars of the likeliest next tokens, sliders, and a writer.

    The browser reads the int8 weights of a folder and computes everything from them,
    so it works without a kernel too. `ids` holds what was read last, `top` what is
    likeliest after it. Raises FolderError for a model in float32, or with layers other
    than F and W.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = HERE / "sampling.css"
    prompt = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    temperature = traitlets.Float(0.6).tag(sync=True)
    top_k = traitlets.Int(0).tag(sync=True)  # 0 keeps all
    top_p = traitlets.Float(1.0).tag(sync=True)
    min_p = traitlets.Float(0.0).tag(sync=True)
    repetition_penalty = traitlets.Float(1.0).tag(sync=True)
    config = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)  # a safetensors file
    merges = traitlets.List().tag(sync=True)  # [left id, right id], in order
    expression = traitlets.Unicode().tag(sync=True)  # what cuts text into pieces
    end = traitlets.Int().tag(sync=True)  # the id that ends a text
    ids = traitlets.List().tag(sync=True)
    top = traitlets.List().tag(sync=True)  # [id, logit, probability]

    def __init__(self, folder: str | Path, prompt: str):
        folder = Path(folder)
        contents = read_config(folder)
        config = ModelConfig(**contents["model"])
        if contents["weights"] != "int8" or set(config.pattern) - set("FW"):
            found = f"{contents['weights']} weights, pattern {config.pattern}"
            raise FolderError(f"{folder} has {found}: expected int8, layers F and W")
        read_weights(folder / "model.safetensors", contents["sha256"])
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        scripts = [HERE / "forward.js", HERE / "sampling.js"]
        super().__init__(
            _esm="\n".join(path.read_text(encoding="utf-8") for path in scripts),
            prompt=prompt,
            config=contents["model"],
            weights=(folder / "model.safetensors").read_bytes(),
            merges=[[left, right] for left, right in tokenizer.merges],
            expression=PATTERNS[tokenizer.pattern].expression,
            end=tokenizer.specials[END],
        )
