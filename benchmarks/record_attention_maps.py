"""Record what each token of a story reads in the model of data/runs/tour-model.

    .venv/bin/python benchmarks/record_attention_maps.py [MODEL [RECORD]]

Writes data/runs/attention-maps.json, which chapter 8 draws. A few seconds.
"""

import json
import sys
from pathlib import Path

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.folder import load_folder
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import END
from cort33x_lib.view.attention_maps import attention_weights, pack_maps

RUNS = PROJECT / "data" / "runs"
STORY, TOKENS = 7, 80  # a window of 64 ends before the text does


def main(model_folder: Path, record: Path) -> None:
    model, tokenizer = load_folder(model_folder)
    story = World.load().story("validation", STORY)
    ids = [tokenizer.specials[END], *tokenizer.encode(story.text)][:TOKENS]
    maps = attention_weights(model.eval(), ids)
    contents = {
        "model": json.loads((model_folder / "config.json").read_text())["sha256"],
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "story": f"validation {STORY}",
        "tokens": ["(end)", *(tokenizer.decode([id]) for id in ids[1:])],
        "pattern": model.config.pattern,
        "heads": model.config.heads,
        "window": model.config.window,
        "maps": {str(number): pack_maps(weights) for number, weights in maps.items()},
    }
    write_atomically(record, json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*given, *[RUNS / "tour-model", RUNS / "attention-maps.json"][len(given) :])
