import re

import pytest
from PIL import Image

from dynin import testing
from dynin.cli import filmstrip
from dynin.cli.cases import cases
from dynin.cli.gallery_referring import FAMILIES, referring_cards
from dynin.cli.page import Card, Figure, write_page
from dynin.errors import RequestError
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.virst import models


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny()


@pytest.mark.parametrize("to", ["text", "image", "video", "speech"])
def test_a_trace_becomes_an_animation_of_one_size(tiny, tmp_path, to):
    result = tiny.generate("a dog", to=to, steps=2, trace=True)
    filmstrip.write_gif(tmp_path / "a.gif", result, tiny.tokenizers)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames > 1


def test_hidden_cells_are_grey_and_decided_ones_show_their_code(tiny):
    result = tiny.generate("a dog", to="image", trace=True)
    first = filmstrip.draw(result.trace[0], result, tiny.tokenizers, cell_px=16)
    codes = result.trace[0].codes
    for place, code in enumerate(codes.tolist()):
        row, column = divmod(place, 4)
        is_grey = first.getpixel((column * 16 + 8, row * 16 + 8)) in filmstrip.CELL_GREYS
        assert is_grey == (code == -1)


def test_a_result_without_a_trace_has_no_film(tiny, tmp_path):
    with pytest.raises(RequestError, match="no trace"):
        filmstrip.write_gif(tmp_path / "a.gif", tiny.generate("a dog", to="image"), tiny.tokenizers)
    assert list(tmp_path.iterdir()) == []


def test_at_most_so_many_steps_are_chosen_the_last_among_them(tiny):
    trace = tiny.generate("a dog", to="image", trace=True).trace
    chosen = filmstrip.choose(trace, 5)
    assert len(chosen) == 5
    assert chosen[-1] is trace[-1]


def test_the_demo_has_a_case_for_every_row_of_the_table():
    found = list(cases({name: task.targets for name, task in EMBEDDED_TASKS.items()}))
    assert {case.task for case in found} == set(EMBEDDED_TASKS)
    for case in found:
        assert set(case.given) == set(EMBEDDED_TASKS[case.task].conditions)


def test_the_page_escapes_what_it_shows_and_loads_nothing_from_elsewhere(tmp_path):
    card = Card(
        task="t2t",
        given=(Figure(kind="text", text="<script>alert(1)</script>"),),
        made=(Figure(kind="image", file='a".png'),),
        strip=(Figure(kind="lines", text="a \u00b7\u00b7 <b>"),),
        expected="<i>",
        facts=("1 s",),
    )
    write_page(tmp_path / "index.html", [card], "one & two")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_sentences_about_a_video_become_cards_whose_files_are_there(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    cards = referring_cards(tmp_path / "media")
    assert len(cards) == len(FAMILIES) == capsys.readouterr().out.count("\n")
    for card in cards:
        files = [figure.file for figure in (*card.given, *card.made, *card.strip) if figure.file]
        assert len(files) == 3
        assert all((tmp_path / file).stat().st_size for file in files)
    assert [card.expected is None for card in cards] == [family != "none" for family in FAMILIES]
    write_page(tmp_path / "index.html", cards, "")
    assert "a sentence and a video to a mask" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_missing_package_leaves_them_out_in_words(tmp_path, capsys, monkeypatch):
    def load():
        raise RequestError("the package transformers is missing; run: pip install 'dynin[segmentation]'")

    monkeypatch.setattr(models, "load", load)
    assert referring_cards(tmp_path) == []
    assert "segment: left out; the package transformers is missing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
