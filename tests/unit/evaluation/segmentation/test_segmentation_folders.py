"""Folders of predicted masks: written whole, read strictly, faults named; submissions of the benchmarks."""

import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image
from referring_films import FRAMES, HEIGHT, WIDTH, Source, film, nothing, small_source, square, track

from dynin.data.referring.source import walk
from dynin.errors import DataError, MediaError, RequestError
from dynin.evaluation.segmentation import davis
from dynin.evaluation.segmentation.floors import truth
from dynin.evaluation.segmentation.pair import score_pair
from dynin.evaluation.segmentation.score import compare, pair_path, read_pair, score_folder
from dynin.evaluation.segmentation.submit import predict_folder, write_pair, write_zip


@pytest.fixture
def folder(tmp_path):
    """The true masks of the small source as predictions."""
    root = tmp_path / "predictions"
    assert predict_folder(small_source(), truth, root) == 7
    return root


def test_a_folder_of_true_masks_scores_one(folder):
    scores, listing = score_folder(small_source(), folder)
    assert {(score.region, score.boundary) for score in scores} == {(1.0, 1.0)}
    assert len(scores) == 7
    assert listing.told() == []


def test_masks_are_pictures_of_one_channel_with_0_and_255(folder):
    with Image.open(folder / "v0" / "0" / "00001.png") as picture:
        assert (picture.mode, picture.size) == ("L", (WIDTH, HEIGHT))
        assert sorted(np.unique(np.asarray(picture))) == [0, 255]


def test_scores_of_a_folder_are_those_of_its_masks(tmp_path):
    source = small_source()

    def shifted(example):
        return (np.roll(example.read_mask(t), 3, axis=1) for t in range(len(example)))

    predict_folder(source, shifted, tmp_path)
    scores, _ = score_folder(source, tmp_path)
    assert scores == [score_pair(example, shifted(example)) for example in walk(source)]


def test_missing_masks_stop_the_scoring_and_are_named(folder):
    (folder / "v0" / "1" / "00002.png").unlink()
    with pytest.raises(DataError, match=r"1 predicted masks are missing, v0/1/00002.png"):
        score_folder(small_source(), folder)


def test_missing_masks_count_as_empty_only_where_asked_for(folder):
    (folder / "v0" / "1" / "00002.png").unlink()
    scores, listing = score_folder(small_source(), folder, missing_as_empty=True)
    assert listing.missing == ("v0/1/00002.png",)
    assert listing.told() == ["1 files are missing: v0/1/00002.png"]
    assert sorted(score.region for score in scores)[:2] == [0.8, 1.0]


def test_what_is_not_expected_is_named(folder):
    (folder / "v0" / "1" / "00009.png").write_bytes(b"")
    (folder / "v0" / "1" / "notes.txt").write_text("")
    (folder / "other").mkdir()
    (folder / "other" / "00000.png").write_bytes(b"")
    scores, listing = score_folder(small_source(), folder)
    assert len(scores) == 7
    assert listing.extra == ("other/00000.png", "v0/1/00009.png", "v0/1/notes.txt")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((HEIGHT, WIDTH - 1), dtype=np.uint8), r"55 x 40 px, expected 56 x 40"),
        (np.ones((HEIGHT, WIDTH), dtype=np.uint8), r"holds the value 1; expected only 0 and 255"),
        (np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), r"mode RGB, expected one channel of 8 bits"),
        (np.zeros((HEIGHT, WIDTH), dtype=np.uint16), r"mode I;16, expected one channel of 8 bits"),
    ],
)
def test_masks_that_are_not_as_expected_are_refused(folder, values, message):
    place = folder / "v1" / "0" / "00003.png"
    Image.fromarray(values).save(place)
    with pytest.raises(DataError, match=rf"{re.escape(str(place))}: .*{message}"):
        score_folder(small_source(), folder)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nno picture", b"GIF89a"])
def test_damaged_masks_are_named(folder, content):
    place = folder / "v1" / "0" / "00003.png"
    place.write_bytes(content)
    with pytest.raises(MediaError, match=re.escape(str(place))):
        score_folder(small_source(), folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder; give the folder that holds"):
        compare(small_source(), tmp_path / "nowhere")


def test_two_sentences_of_one_place_are_refused(folder):
    with pytest.raises(DataError, match="two sentences have the place v0/0"):
        compare(Source([[film("v0", "0"), film("v0", "0")]]), folder)


@pytest.mark.parametrize(("video", "sentence"), [("../v", "0"), ("/v", "0"), ("v", "a/b"), ("v", ".."), ("v", "")])
def test_names_that_lead_out_of_the_folder_are_refused(video, sentence):
    with pytest.raises(DataError, match="its names are no names of folders and files"):
        pair_path(film(video, sentence))


def test_names_of_videos_may_have_a_folder(tmp_path):
    source = Source([[film("LVVIS/00001", "0")]])
    predict_folder(source, truth, tmp_path)
    assert (tmp_path / "LVVIS" / "00001" / "0" / "00004.png").is_file()
    assert score_folder(source, tmp_path)[0][0].region == 1


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([square(0, 0)] * 4, "4 masks for 5 frames"),
        ([square(0, 0)] * 6, r"mask 5 is 56 x 40 px; expected 5 masks of 56 x 40 px"),
        ([square(0, 0, width=9)] * 5, r"mask 0 is 9 x 40 px; expected 5 masks of 56 x 40 px"),
    ],
)
def test_a_pair_is_written_whole_or_not_at_all(tmp_path, masks, message):
    with pytest.raises(DataError, match=message):
        write_pair(tmp_path, film(), masks)
    assert not list(tmp_path.rglob("*.png"))
    assert not [path for path in tmp_path.rglob("*") if path.name != "v"]


def test_a_stopped_prediction_goes_on_where_it_was(tmp_path):
    source = small_source()

    def stops(example):
        if example.video == "v1" and example.sentence_id == "1":
            raise KeyboardInterrupt
        return truth(example)

    with pytest.raises(KeyboardInterrupt):
        predict_folder(source, stops, tmp_path)
    seen = []
    assert predict_folder(source, truth, tmp_path, progress=lambda *told: seen.append(told)) == 4
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert score_folder(source, tmp_path)[1].told() == []


def test_a_folder_of_another_model_is_not_gone_on_with(tmp_path):
    root = tmp_path / "predictions"
    predict_folder(small_source(), truth, root, about={"model": "a"})
    assert predict_folder(small_source(), truth, root, about={"model": "a"}) == 0
    assert compare(small_source(), root).told() == []
    with pytest.raises(DataError, match=r"holds predictions of something else, as .predicted-by.json tells"):
        predict_folder(small_source(), truth, root, about={"model": "b"})
    (root / ".predicted-by.json").unlink()
    with pytest.raises(DataError, match="holds files that this did not predict"):
        predict_folder(small_source(), truth, root, about={"model": "a"})


def test_a_written_pair_is_not_written_over(tmp_path):
    write_pair(tmp_path, film(), truth(film()))
    with pytest.raises(MediaError, match="is there already; delete it"):
        write_pair(tmp_path, film(), truth(film()))


@pytest.mark.parametrize(("dataset", "top"), [("mevis", ""), ("ref-youtube-vos", "Annotations/")])
def test_a_submission_has_the_paths_that_its_server_wants(folder, tmp_path, dataset, top):
    output = tmp_path / "submission.zip"
    (folder / "notes.txt").write_text("")
    listing = write_zip(small_source(), folder, output, dataset)
    assert listing.extra == ("notes.txt",)
    with zipfile.ZipFile(output) as archive:
        names = archive.namelist()
        assert archive.read(names[0]) == (folder / "v0" / "0" / "00000.png").read_bytes()
    assert names[0] == f"{top}v0/0/00000.png"
    assert len(names) == 7 * FRAMES


def test_equal_masks_make_equal_zips(folder, tmp_path):
    for name in ("a.zip", "b.zip"):
        write_zip(small_source(), folder, tmp_path / name, "mevis")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_nothing_is_submitted_that_is_not_whole(folder, tmp_path):
    (folder / "v2" / "2" / "00004.png").unlink()
    with pytest.raises(DataError, match=r"1 files are missing: v2/2/00004.png; predict them first"):
        write_zip(small_source(), folder, tmp_path / "a.zip", "mevis")
    Image.fromarray(np.full((HEIGHT, WIDTH), 7, dtype=np.uint8)).save(folder / "v2" / "2" / "00004.png")
    with pytest.raises(DataError, match="holds the value 7"):
        write_zip(small_source(), folder, tmp_path / "a.zip", "mevis")
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.parametrize(
    ("dataset", "name", "message"),
    [("revos", "a.zip", "revos has no server"), ("mevis", "a.tar", "a submission is a zip; call it a.zip")],
)
def test_what_no_server_takes_is_refused(folder, tmp_path, dataset, name, message):
    with pytest.raises(RequestError, match=message):
        write_zip(small_source(), folder, tmp_path / name, dataset)


def davis_source(num_objects=2):
    """One video, four sentences for each object."""
    tracks = [track((4, 4), (0, 3)), track((24, 30), (-1, -2)), track((14, 44), (0, 0))][:num_objects]
    return Source([[film("dogs", str(n), tracks[n // 4]) for n in range(4 * num_objects)]])


def test_annotators_score_one_with_true_masks(tmp_path):
    predict_folder(davis_source(), truth, tmp_path)
    scores = davis.score_annotators(davis_source(), tmp_path)
    assert scores == [davis.AnnotatorScore(region=1.0, boundary=1.0, region_named=1.0, boundary_named=1.0)] * 4


def test_annotators_lay_objects_as_they_fit_best_and_by_name(tmp_path):
    """Annotator 2 took the one object for the other: the customary score does not notice."""
    source = davis_source()
    swapped = {"2": "6", "6": "2"}
    by_id = {example.sentence_id: example for example in walk(source)}
    predict_folder(
        source, lambda example: truth(by_id[swapped.get(example.sentence_id, example.sentence_id)]), tmp_path
    )
    scores = davis.score_annotators(source, tmp_path)
    assert [score.region for score in scores] == [1, 1, 1, 1]
    assert [score.region_named for score in scores] == [1, 1, 0, 1]


def test_a_pixel_of_two_objects_goes_to_the_first(tmp_path):
    first, second = square(4, 4), square(8, 8)
    assert davis.merged([first, second])[9, 9] == 1
    assert davis.merged([first, second])[15, 15] == 2
    assert davis.merged([first, second])[0, 0] == 0


def test_the_zip_of_annotators_holds_indexed_pictures(tmp_path):
    predict_folder(davis_source(), truth, tmp_path / "p")
    davis.write_annotators_zip(davis_source(), tmp_path / "p", tmp_path / "davis.zip")
    with zipfile.ZipFile(tmp_path / "davis.zip") as archive:
        assert len(archive.namelist()) == 4 * FRAMES
        with archive.open("anno_3/dogs/00001.png") as stream, Image.open(stream) as picture:
            assert picture.mode == "P"
            assert sorted(np.unique(np.asarray(picture))) == [0, 1, 2]
            assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


@pytest.mark.parametrize("ids", [["0", "1", "2"], ["1", "2", "3", "4"], ["a", "b", "c", "d"], []])
def test_sentences_that_are_not_four_for_each_object_are_refused(ids):
    with pytest.raises(DataError, match="4 for each object, as Ref-DAVIS17 has them"):
        davis.objects([film("dogs", name) for name in ids])


def test_sentences_are_ordered_by_number():
    grid = davis.objects([film("dogs", name) for name in sorted(map(str, range(12)))])
    assert [[example.sentence_id for example in row] for row in grid] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6", "7"],
        ["8", "9", "10", "11"],
    ]


def test_the_best_assignment_is_found():
    from itertools import permutations

    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4, 5):
        values = rng.random((count, count))
        best = max(permutations(range(count)), key=lambda rows: sum(values[row, c] for c, row in enumerate(rows)))
        assert davis.assignment(values) == list(best)


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    def peak(frames):
        example = film("long", str(frames), [square(4, 4, height=200, width=300)] * frames)
        write_pair(tmp_path, example, truth(example))
        tracemalloc.start()
        score_pair(example, read_pair(example, tmp_path))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)  # what the first call leaves behind is not the frames'
    assert peak(60) < 1.1 * peak(6)


def test_no_masks_are_no_target(tmp_path):
    source = Source([[film("v", "0", nothing(), family="none")]])
    predict_folder(source, truth, tmp_path)
    assert score_folder(source, tmp_path)[0][0].is_empty
