"""The page: whole, well-formed, self-contained, safe, and with nothing on it that the report does not hold."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from onnx_layermerge.report import Report, as_json, from_json, render_html
from tests.report import made

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}
# References that make a browser fetch something.
FETCHING = {"src", "srcset", "action", "poster", "data", "background", "xlink:href"}


class Page(HTMLParser):
    """Text, tags and references; a tag that is closed out of order is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_html(made.everything()))


def test_the_headline_is_what_was_measured(page: Page) -> None:
    for figure in (
        "1.50×",
        "95 % interval 1.470 to 1.530",
        "3.00 ms → 2.00 ms",
        "1.40×",
        "1.53×",
        "2.0 % above",
        "4 → 2",
    ):
        assert figure in page.text, figure
    assert "give more samples" in page.text and "98.7 %" in page.text and "0.0421" in page.text
    assert "measured in this run" in page.text


def test_every_block_is_a_row_with_all_its_figures(page: Page) -> None:
    for figure in (
        "1 · one fitted convolution",
        "b … c",
        "→ 5×5 8→8",
        "0.750",
        "0.250",
        "0.0125",
        "0.0321",
        "1,234 rows",
    ):
        assert figure in page.text, figure
    assert "2 · dropped" in page.text and "→ nothing" in page.text
    assert "all 2 1.12 0.750 0.375 0.512" in page.text  # the sums


def test_metric_boxes_drift_and_finishing_are_there(page: Page) -> None:
    for figure in ("mine.py:accuracy", "0.871 → 0.869", "92.8 %", "0.914", "0.99876", "21.5", "refitted", "tuned"):
        assert figure in page.text, figure
    assert "fitted on all 64 samples" in page.text and "of fits on 48" in page.text


def test_rejected_plans_say_why(page: Page) -> None:
    for words in ("no better than the chosen one", "too slow when it was timed again", "refused by the backend"):
        assert words in page.text, words


def test_it_tells_how_to_do_it_again(page: Page) -> None:
    assert "olm compress models/in.onnx out.onnx --speedup 1.4 --calib 'my images'" in page.text
    for word in (
        "1" * 64,
        "2" * 64,
        "3" * 64,
        "abcdef0123456789",
        "table.json",
        "seed 7",
        "onnx 1.20",
        "python 3.11.0",
    ):
        assert word in page.text, word


def test_nothing_is_shown_that_was_not_measured() -> None:
    bare = made.report(
        validation=None, outputs=(), fits=None, rejected=(), recovery=(), points=(), drop_only=(), command=(),
        warnings=(), measured_now=False, fitted_on=0, judged_on=0,
    )  # fmt: skip
    text = Page(render_html(bare)).text
    for word in ("same answer", "Drift", "your metric", "matched", "Plans that were built", "Speed-up against loss",
                 "Warning", "Finishing", "Fits:", "fitted on all", "olm compress m", "nan", "None",
                 "measured in this run"):  # fmt: skip
        assert word not in text, word
    assert "read from the latency table" in text and "no figure of what the result still gets right" in text


def test_numbers_that_are_not_finite_are_dashes() -> None:
    blocks = tuple(dataclasses.replace(block, loss_alone=float("nan")) for block in made.blocks())
    odd = made.report(blocks=blocks, expected=float("inf"), divergence=float("nan"))
    text = Page(render_html(odd)).text
    assert "nan" not in text and "∞" in text
    assert Page(render_html(from_json(as_json(odd)))).text.count("–") > text.count("–")


def test_a_training_reaches_every_weight() -> None:
    trained = made.report(recovery=("finetune",))
    text = Page(render_html(trained)).text
    assert "no weight has to be what it was" in text and "Only inside of blocks" not in text
    text = Page(render_html(made.report(recovery=("tune",)))).text
    assert "Only inside of blocks" in text and "no weight has to be" not in text


def evil() -> Report:
    name = made.EVIL
    keys = dataclasses.replace(made.report().keys, profile=name, versions={name: name})
    return dataclasses.replace(
        made.everything(), input=name, output=name, device=name, basis=name, warnings=(name,), refitted=(name,),
        blocks=made.blocks(name), before=made.before(name), keys=keys, command=(name,), recovery=(name,),
        outputs=tuple(dataclasses.replace(each, name=name) for each in made.report().outputs),
    )  # fmt: skip


def test_names_are_text_never_markup() -> None:
    html = render_html(evil())
    page = Page(html)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page(render_html(made.everything())).tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("alert('x')") > 10


def test_control_characters_cannot_break_it() -> None:
    Page(
        render_html(made.report(blocks=made.blocks("a\x00b\x1b[31m\ud800"), before=made.before("\x07")))
        .encode()
        .decode()
    )


def test_it_needs_nothing_else(page: Page) -> None:
    html = render_html(made.everything())
    assert not re.search(r"https?:|//[a-z]|@import|url\(|javascript:", html)
    assert not page.found("script") and not page.found("link") and not page.found("iframe")
    for _, attributes in page.tags:
        assert not FETCHING & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = (meta["content"] for meta in page.found("meta") if meta.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_every_link_leads_somewhere(page: Page) -> None:
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {(attributes["href"] or "").lstrip("#") for attributes in page.found("a")}
    assert links == {"block-1", "block-2"} <= targets


def test_it_can_be_read_aloud(page: Page) -> None:
    pictures = page.found("svg")
    assert len(pictures) >= 4 and all(picture.get("role") == "img" for picture in pictures)
    html = render_html(made.everything())
    assert all(re.match(r"<title>[^<]+</title>", part) for part in re.split(r"<svg[^>]*>", html)[1:])
    assert all(heading.get("scope") in ("col", "row") for heading in page.found("th"))
    assert page.tags[0] == ("html", {"lang": "en"})


def test_the_page_comes_back_from_the_json() -> None:
    whole = made.everything()
    assert render_html(from_json(as_json(whole))) == render_html(whole)


@pytest.mark.parametrize("refitted", [(), ("a",)])
def test_kept_weights_are_not_claimed_to_be_those_of_the_file(refitted: tuple[str, ...]) -> None:
    """A norm may have been folded into them."""
    text = Page(render_html(dataclasses.replace(made.everything(), refitted=refitted))).text
    assert "once the model was prepared (norms and scales folded)" in text
    assert "bit for bit" not in text and "input's own" not in text


def test_the_same_report_gives_the_same_page() -> None:
    assert render_html(made.everything()) == render_html(made.everything())
