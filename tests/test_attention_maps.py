"""The attention viewer: its maps are those of the model, and it works in a browser."""

import json
import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from cort33x_lib.model import reference
from cort33x_lib.model.attention import attend
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.mixers import MIXERS
from cort33x_lib.model.reference import naive_attention
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.view.attention_maps import (
    AttentionViewer,
    attention_weights,
    pack_maps,
    unpack_maps,
)

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "data" / "runs"
TINY = CONFIGS["tiny"]  # window 8
TOKENS, HEADS, WINDOW = 12, 2, 5
WORDS = [
    "(end)",
    " Mia",
    " has",
    " a",
    "\n",
    "<b>",
    "&",
    " drum",
    ".",
    "\u00e9",
    " x",
    " y",
]


def model_of(pattern: str) -> Transformer:
    model = Transformer(replace(TINY, pattern=pattern)).double()
    generator = torch.Generator().manual_seed(5)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("pattern", ["FF", "WF", "SW", "DF", "LD"])
def test_maps_times_values_are_what_the_layer_reads(pattern):
    model, ids = model_of(pattern), [*range(20)]
    maps = attention_weights(model, ids)
    assert [*maps] == [place for place in range(2) if pattern[place] != "D"]
    with torch.no_grad():
        x = model.read(torch.tensor([ids]))[0]
        for number, weights in maps.items():
            assert weights.shape == (TINY.heads, 20, 20)
            sums = weights.sum(dim=2)
            if pattern[number] == "S":
                assert (sums < 1).all()
            else:
                torch.testing.assert_close(sums, torch.ones_like(sums))
        assert x.isfinite().all()


@pytest.mark.parametrize("letter", [letter for letter in MIXERS if letter != "D"])
def test_a_map_is_the_softmax_of_the_naive_scores(letter, monkeypatch):
    """The reference reads an identity, one key at a time: what it reads is the map."""
    model, T = model_of(letter), 20
    mixer, seen = model.blocks[0].mixer, {}
    mixer.register_forward_hook(lambda _, given, made: seen.update(x=given[0]))
    (weights,) = attention_weights(model, [*range(T)]).values()

    def read(queries, keys, values, *rest):
        identity = torch.eye(T).expand(*keys.shape[:2], T, T)
        seen["naive"] = naive_attention(queries, keys, identity, *rest)[0]
        return naive_attention(queries, keys, values, *rest)

    monkeypatch.setattr(reference, "naive_attention", read)
    with torch.no_grad():
        if letter == "L":
            reference.naive_latent(mixer, seen["x"])
        else:
            window = 0 if letter == "F" else TINY.window
            sinks = getattr(mixer, "sinks", None)
            reference.naive_mixer(mixer, seen["x"], window, sinks)
    torch.testing.assert_close(weights, seen["naive"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("letter", [letter for letter in MIXERS if letter != "D"])
def test_the_mixer_reads_by_these_weights(letter):
    """The mixer's own output, made again from its values and the maps."""
    model, ids = model_of(letter), [*range(20)]
    seen = {}
    mixer = model.blocks[0].mixer
    mixer.register_forward_hook(
        lambda _, given, made: seen.update(x=given[0], y=made[0])
    )
    weights = attention_weights(model, ids)[0]
    with torch.no_grad():
        projected = mixer.project(seen["x"], torch.zeros(1, dtype=torch.int64))
        if letter == "L":
            made = mixer.make_values(projected[1][:, 0, :, : mixer.latent_channels])
            values = made.unflatten(2, (TINY.heads, -1)).transpose(1, 2)
        else:
            shared = TINY.heads // TINY.key_value_heads
            values = projected[2].repeat_interleave(shared, dim=1)
        again = mixer.project_out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(again, seen["y"], atol=1e-10, rtol=0)


def test_no_hook_stays_behind():
    model = model_of("WF")
    attention_weights(model, [1, 2, 3])
    for block in model.blocks:
        assert not block.mixer._forward_pre_hooks and not block._forward_hooks


def test_packed_maps_come_back_within_half_a_step():
    queries = torch.randn(1, 3, 9, 4, generator=torch.Generator().manual_seed(0))
    weights = attend(queries, queries, torch.eye(9).expand(1, 3, 9, 9))[0]
    again = unpack_maps(pack_maps(weights), 3, 9)
    assert (again - weights).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="135 weights, expected 3 maps of 8 tokens"):
        unpack_maps(pack_maps(weights), 3, 8)


def record() -> dict:
    chance = torch.Generator().manual_seed(1)
    scores = torch.randn(3, HEADS, TOKENS, TOKENS, generator=chance)
    maps = scores.masked_fill(torch.ones(TOKENS, TOKENS).triu(1) > 0, -torch.inf)
    far = torch.ones(TOKENS, TOKENS).tril(-WINDOW) > 0
    maps[0].masked_fill_(far, -torch.inf)
    packed = {str(layer): pack_maps(one.softmax(-1)) for layer, one in enumerate(maps)}
    sizes = {"pattern": "WFL", "heads": HEADS, "window": WINDOW}
    return {"tokens": WORDS, "maps": packed, **sizes}


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="156 weights, expected 2 maps of 11 tokens"):
        AttentionViewer(record() | {"tokens": WORDS[1:]})


def page_with(viewer: AttentionViewer) -> str:
    """A page as the site makes them: the widget's state and the host, no kernel."""
    kept = {"model_module": "anywidget", "state": viewer.get_state()}
    for name in ("layout", "tabbable", "tooltip"):
        kept["state"].pop(name, None)
    host = (ROOT / "book" / "_static" / "static-widgets.js").read_text("utf-8")
    host = host.replace(
        "isStatic: true,", "isStatic: true, state: window.held = state,"
    )
    kind = '<script type="application/vnd.jupyter.widget-'

    def script(name: str, content: dict) -> str:
        text = json.dumps(content).replace("<", "\\u003c")
        return f'{kind}{name}+json">{text}</script>'

    return (
        '<!doctype html><html data-theme="light"><meta charset="utf-8"><body>'
        f"{script('state', {'state': {'one': kept}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """The viewer's page in a browser, and the list of its faults."""
    context = browser.new_context(viewport={"width": 900, "height": 900})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    path = tmp_path / "page.html"
    path.write_text(page_with(AttentionViewer(record())), "utf-8")
    page.goto(path.as_uri())
    page.locator(".attention-viewer").wait_for()
    yield page
    assert faults == []
    context.close()


def chosen(page) -> dict:
    return page.evaluate("window.held.chosen")


def test_every_row_of_every_map_is_the_recorded_one(opened):
    maps = {int(n): unpack_maps(m, HEADS, TOKENS) for n, m in record()["maps"].items()}
    for layer, head in product(range(3), range(2)):
        letter = "WFL"[layer]
        name = f"Layer {layer + 1} ({letter}), head {head + 1}"
        opened.get_by_role("button", name=name, exact=True).click()
        for reader in random.Random(layer).sample(range(TOKENS), 6):
            opened.get_by_role("slider", name="Reader").fill(str(reader + 1))
            shown = chosen(opened)
            assert (shown["layer"], shown["head"]) == (layer, head)
            window = WINDOW if letter == "W" else TOKENS
            may_read = [*range(max(0, reader - window + 1), reader + 1)]
            assert sorted(s for s, _ in shown["read"]) == may_read
            for s, weight in shown["read"]:
                assert weight == pytest.approx(maps[layer][head, reader, s].item())
            found = [weight for _, weight in shown["read"]]
            assert found == sorted(found, reverse=True)


def test_masks_say_who_may_read_whom(opened):
    pairs = {}
    for letter, name in (("F", "F: full"), ("W", "W: a window"), ("S", "S: a window")):
        opened.get_by_role("button", name=name).click()
        if letter == "F":
            expect(opened.get_by_role("slider", name="Window")).to_be_hidden()
        else:
            opened.get_by_role("slider", name="Window").fill("3")
        for reader in (1, 2, 12):
            opened.get_by_role("slider", name="Reader").fill(str(reader))
            pairs[letter, reader] = len(chosen(opened)["read"])
    assert [pairs["F", reader] for reader in (1, 2, 12)] == [1, 2, 12]
    for letter in "WS":
        assert [pairs[letter, reader] for reader in (1, 2, 12)] == [1, 2, 3]
    expect(opened.locator("output")).to_contain_text("33 of 78 pairs")
    opened.get_by_role("button", name="D: a state").click()
    weights = dict(chosen(opened)["read"])
    assert weights[11] == 1 and weights[10] == pytest.approx(0.9)


def test_every_letter_has_a_mask_and_reads_as_it_says(opened):
    """A row of the mask is where a token of a real layer has a slope that is not 0."""
    buttons = opened.get_by_role("group", name="Masks").get_by_role("button")
    assert sorted(buttons.all_text_contents()) == sorted(MIXERS)
    for letter in MIXERS:
        mixer = model_of(letter).blocks[0].mixer
        chance = torch.Generator().manual_seed(2)
        x = torch.randn(1, TOKENS, TINY.channels, generator=chance).double()
        y = mixer(x.requires_grad_())[0]
        buttons.filter(has_text=letter).click()
        if letter in "WS":
            opened.get_by_role("slider", name="Window").fill(str(TINY.window))
        for reader in range(TOKENS):
            opened.get_by_role("slider", name="Reader").fill(str(reader + 1))
            (slope,) = torch.autograd.grad(y[0, reader].sum(), x, retain_graph=True)
            read = slope[0].abs().sum(dim=1).nonzero().flatten().tolist()
            assert [s for s, _ in chosen(opened)["read"]] == read
        expect(opened.locator("output")).to_contain_text(
            "reads a state" if letter == "D" else f"may read {len(read)} tokens"
        )


def test_it_is_steered_by_keyboard_and_pointer(opened):
    opened.get_by_role("button", name="Layer 2 (F), head 1").focus()
    opened.keyboard.press("Enter")
    expect(opened.locator("h4")).to_have_text("Layer 2 (F), head 1")
    opened.get_by_role("slider", name="Reader").focus()
    opened.keyboard.press("ArrowLeft")
    assert chosen(opened)["reader"] == TOKENS - 2
    box = opened.locator(".frame canvas").bounding_box()
    opened.mouse.move(box["x"] + 5, box["y"] + box["height"] * 3.5 / TOKENS)
    assert chosen(opened)["reader"] == 3
    opened.locator(".text span").nth(7).click()
    assert chosen(opened)["reader"] == 7
    expect(opened.locator("output")).to_contain_text("Token 8, \u201c drum\u201d")


def test_the_large_map_shows_what_may_be_read(opened):
    """Colours of the drawing itself: a weight is orange, what is masked is grey."""
    opened.get_by_role("button", name="Layer 1 (W), head 1").click()
    pixels = opened.evaluate(
        """() => { const canvas = document.querySelector(".frame canvas");
        return [...canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data]; }"""
    )
    weights = unpack_maps(record()["maps"]["0"], HEADS, TOKENS)[0]
    for t in range(TOKENS):
        for s in range(TOKENS):
            red, green, blue, alpha = pixels[4 * (t * TOKENS + s) :][:4]
            if t - WINDOW < s <= t:
                assert alpha == pytest.approx(255 * weights[t, s].sqrt().item(), abs=2)
                assert alpha < 40 or red > 2 * green > blue
            else:
                assert alpha == 45 and abs(red - green) < 12


def test_text_is_shown_as_it_is(opened):
    shown = opened.locator(".text").text_content()
    assert shown == "".join(WORDS).replace("\n", "\u21b5")
    assert opened.locator(".attention-viewer b").count() == 2  # those of the sliders


@pytest.mark.skipif(
    not (RUNS / "attention-maps.json").exists(), reason="no maps are recorded"
)
def test_the_record_is_of_the_model_that_is_kept():
    path = RUNS / "attention-maps.json"
    kept = json.loads(path.read_text("utf-8"))
    AttentionViewer(kept)
    model = json.loads((RUNS / "tour-model" / "config.json").read_text("utf-8"))
    assert kept["model"] == model["sha256"]
    assert path.stat().st_size < 150_000
