"""Reads a referring sentence and finds what it means from places alone; shares no rule with the writer of sentences.

Enters: words, and where everything is in every frame. Leaves: the indices of what is meant. Does not know: the motions
that were planned, claims, pixels.
"""

import re
from collections.abc import Callable

import numpy as np

from dynin.data.emoji_world.artwork import ARTWORKS
from dynin.data.emoji_world.referring_motion import BAR_WIDTH
from dynin.data.emoji_world.referring_scene import ReferringScene, Track
from dynin.data.emoji_world.referring_wording import CATEGORY

_KINDS = {
    r"animals?": "animal",
    r"things? that one can eat": "food",
    r"vehicles?": "vehicle",
    r"musical instruments?": "instrument",
}
_NAMES = sorted(((form, art.name) for art in ARTWORKS for form in (art.name, art.plural)), key=lambda p: -len(p[0]))
_NOUN = (
    rf"(?:(?:small|little|large|big) )?(?:{'|'.join([*_KINDS, *(re.escape(form) for form, _ in _NAMES), 'things?'])})"
)
_OPENING = re.compile(r"^(find|segment|show me|where is|which) ")
_COUNT = re.compile(r"^(?:the|all the|all|both|every) ?(?:(?:two|three|four|five|six)\b)? ?")


def meant(sentence: str, scene: ReferringScene) -> set[int]:
    """What the sentence means."""
    text = sentence.lower().strip(" .?")
    text = _OPENING.sub("", text)
    text = re.sub(r" in the (video|picture)$", "", text)
    rest = re.fullmatch(rf"(?:everything except the|all things that are not|all but the) ({_NOUN})", text)
    if rest:
        return set(range(len(scene.tracks))) - _named(rest[1], scene)
    but = re.fullmatch(rf"(?:all|every) ({_NOUN}) (?:except|but) the one that (.*)", text)
    if but:
        among = _named(but[1], scene)
        return among - _doing(but[2], among, scene)
    text = _COUNT.sub("", text)
    both = re.fullmatch(rf"({_NOUN}) that (.*) and the ({_NOUN})", text) or re.fullmatch(
        rf"(?P<o>{_NOUN}) and the (?P<n>{_NOUN}) that (?P<c>.*)", text
    )
    if both:
        noun, clause, other = (both["n"], both["c"], both["o"]) if "n" in both.groupdict() else both.groups()
        return _doing(clause, _named(noun, scene), scene) | _named(other, scene)
    whole = re.fullmatch(rf"({_NOUN})(?: (?:that |which )?(.*))?", text)
    assert whole, f"cannot read {sentence!r}"
    among = _named(whole[1], scene)
    return among if whole[2] is None else _doing(whole[2], among, scene)


def _named(noun: str, scene: ReferringScene) -> set[int]:
    size = re.match(r"(small|little|large|big) ", noun)
    if size:
        noun = noun[size.end() :]
    for pattern, kind in _KINDS.items():
        if re.fullmatch(pattern, noun):
            return {i for i, track in enumerate(scene.tracks) if track.name in CATEGORY[kind]}
    if noun in ("thing", "things"):
        return set(range(len(scene.tracks)))
    name = next(name for form, name in _NAMES if form == noun)
    wanted = None if size is None else "small" if size[1] in ("small", "little") else "large"
    return {i for i, t in enumerate(scene.tracks) if t.name == name and wanted in (None, t.size)}


def _doing(clause: str, among: set[int], scene: ReferringScene) -> set[int]:
    for pattern, rule in _RULES:
        found = re.fullmatch(pattern, clause)
        if found:
            return rule(found, sorted(among), scene)
    raise AssertionError(f"cannot read the clause {clause!r}")


# --- what is seen of one thing ------------------------------------------------------------------------


def _seen(track: Track) -> np.ndarray:
    half = track.side / 2
    inside = [(-half < x < 1 + half) and (-half < y < 1 + half) for x, y in track.path.centres.tolist()]
    return np.array(inside) & track.path.is_present


def _steps(track: Track) -> np.ndarray:
    """Movements between frames in both of which the thing is seen."""
    seen = _seen(track)
    return np.diff(track.path.centres, axis=0)[seen[1:] & seen[:-1]]


def _turns(steps: np.ndarray, axis: int) -> int:
    signs = np.sign(np.where(np.abs(steps[:, axis]) < 1e-9, 0, steps[:, axis]))
    signs = signs[signs != 0]
    return int((signs[1:] != signs[:-1]).sum())


def _is_still(track: Track) -> bool:
    return not np.abs(_steps(track)).sum() > 1e-9


def _goes(track: Track, way: tuple[int, int]) -> bool:
    steps = _steps(track)
    net = steps.sum(axis=0)
    along, across = net @ np.array(way), abs(net @ np.array(way[::-1]))
    return bool(along > 0.1 and along > across)


def _zigzags(track: Track) -> bool:
    steps = _steps(track)
    return sorted((_turns(steps, 0), _turns(steps, 1)))[1] >= 3 and min(_turns(steps, 0), _turns(steps, 1)) == 0


def _circles(track: Track) -> bool:
    steps = _steps(track)
    places = track.path.centres
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    radii = np.linalg.norm(places - middle, axis=1)
    return bool(_turns(steps, 0) >= 1 and _turns(steps, 1) >= 1 and radii.min() > 0.09 and np.ptp(radii) < 0.05)


def _turns_back(track: Track) -> bool:
    steps = _steps(track)
    for axis in (0, 1):
        if np.abs(steps[:, 1 - axis]).max(initial=0) < 1e-9 and _turns(steps, axis) == 1:
            places = track.path.centres[:, axis]
            return bool(abs(places[-1] - places[0]) < 0.1 and np.ptp(places) > 0.2)
    return False


def _stops(track: Track) -> bool:
    speeds = np.linalg.norm(np.diff(track.path.centres, axis=0), axis=1)
    late = speeds[-len(speeds) // 3 :]
    return bool(speeds[0] > 1e-6 and late.max() < 1e-9 and _seen(track).all())


def _speeds_up(track: Track) -> bool:
    speeds = np.linalg.norm(np.diff(track.path.centres, axis=0), axis=1)
    return bool(speeds[0] > 0 and (np.diff(speeds) > -1e-9).all() and speeds[-1] > 2 * speeds[0])


def _enters(track: Track) -> bool:
    return not _seen(track)[0] and bool(track.path.is_present[0]) and bool(_seen(track)[-1])


def _leaves(track: Track) -> bool:
    return bool(_seen(track)[0]) and not _seen(track)[-1]


def _changes(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for i, flag in enumerate(flags) if i == 0 or flag != flags[i - 1])


def _vanishes(track: Track) -> bool:
    return "101" in _changes(_seen(track)) and not track.path.is_present.all()


def _passes(scene: ReferringScene, index: int) -> bool:
    """Whether a thing is on one side of the bar first and on the other in the end."""
    assert scene.bar is not None
    track = scene.tracks[index]
    reach = (BAR_WIDTH + track.side) / 2
    lead = track.path.centres[:, scene.bar.axis] - scene.bar.middle
    is_seen = _seen(track)
    return bool(
        is_seen[0] and is_seen[-1] and abs(lead[0]) > reach and abs(lead[-1]) > reach and lead[0] * lead[-1] < 0
    )


def _is_hidden(scene: ReferringScene, index: int) -> bool:
    seen = _seen(scene.tracks[index])
    if scene.bar is not None and index < scene.bar.num_behind:
        lead = np.abs(scene.tracks[index].path.centres[:, scene.bar.axis] - scene.bar.middle)
        seen = seen & (lead > (BAR_WIDTH - scene.tracks[index].side) / 2)
    return "101" in _changes(seen)


# --- what clauses mean -----------------------------------------------------------------------------------

Rule = Callable[[re.Match, list[int], ReferringScene], set[int]]


def _each(test: Callable[[Track], bool]) -> Rule:
    return lambda _, among, scene: {index for index in among if test(scene.tracks[index])}


def _way(axis: int, sign: int) -> Rule:
    way = (sign, 0) if axis == 0 else (0, sign)
    return _each(lambda track: _goes(track, way))


def _best(score: Callable[[ReferringScene, int, re.Match], float | None]) -> Rule:
    """The thing of the least score; None takes no part."""

    def rule(found: re.Match, among: list[int], scene: ReferringScene) -> set[int]:
        scores = {index: score(scene, index, found) for index in among}
        known = {index: value for index, value in scores.items() if value is not None}
        return {min(known, key=lambda index: known[index])} if known else set()

    return rule


def _other(scene: ReferringScene, found: re.Match) -> Track:
    groups = found.groupdict()
    (index,) = _named(groups["other"] or groups["o2"], scene)
    return scene.tracks[index]


def _distance(frame: int, sign: int = 1) -> Rule:
    return _best(
        lambda scene, index, found: (
            sign
            * float(np.linalg.norm(scene.tracks[index].path.centres[frame] - _other(scene, found).path.centres[frame]))
        )
    )


def _overtakes(found: re.Match, among: list[int], scene: ReferringScene) -> set[int]:
    other = _other(scene, found)
    ahead = _steps(other).sum(axis=0)
    true = set()
    for index in among:
        track = scene.tracks[index]
        way = _steps(track).sum(axis=0)
        lead = (track.path.centres - other.path.centres) @ ahead
        is_same_way = way @ ahead > 0.9 * np.linalg.norm(way) * np.linalg.norm(ahead) > 0
        if is_same_way and lead[0] < 0 < lead[-1]:
            true.add(index)
    return true


_BESIDE = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def _crosses(found: re.Match, among: list[int], scene: ReferringScene) -> set[int]:
    other = _other(scene, found).path.centres
    before, after = np.array(_BESIDE[found["from"]]), np.array(_BESIDE[found["to"]])
    leads = {index: scene.tracks[index].path.centres - other for index in among}
    return {index for index, lead in leads.items() if lead[0] @ before > 0 and lead[-1] @ after > 0}


def _edge_time(scene: ReferringScene, index: int, found: re.Match) -> float | None:
    track = scene.tracks[index]
    axis, sign = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}[found["edge"]]
    pace = sign * float(track.path.centres[-1, axis] - track.path.centres[-2, axis])
    if pace < 1e-9 or not _seen(track)[-1]:
        return None
    place = float(track.path.centres[-1, axis])
    room = (1 - place if sign > 0 else place) - track.side / 2
    return max(room, 0) / pace


def _extreme(axis: int, sign: int) -> Rule:
    return _best(lambda scene, index, _: sign * float(scene.tracks[index].path.centres[0, axis]))


def _lies(way: tuple[int, int]) -> Rule:
    def rule(found: re.Match, among: list[int], scene: ReferringScene) -> set[int]:
        place = _other(scene, found).path.centres[0]
        leads = {index: scene.tracks[index].path.centres[0] - place for index in among}
        along = {index: float(lead @ np.array(way)) for index, lead in leads.items()}
        return {
            index for index, lead in leads.items() if along[index] > 0 and along[index] >= np.abs(lead).max() - 1e-9
        }

    return rule


def _moment(test: Callable[[Track], bool], *, of_first: bool, sign: int) -> Rule:
    """The thing that passes a test and is first or last seen earliest or latest."""

    def score(scene: ReferringScene, index: int, _: re.Match) -> float | None:
        frames = np.flatnonzero(_seen(scene.tracks[index]))
        return sign * float(frames[0 if of_first else -1]) if test(scene.tracks[index]) else None

    return _best(score)


def _pace(scene: ReferringScene, index: int, _: re.Match) -> float:
    steps = np.linalg.norm(np.diff(scene.tracks[index].path.centres, axis=0), axis=1)
    return -float(np.median(steps))


def _with_bar(test: Callable[[ReferringScene, int], bool]) -> Rule:
    return lambda _, among, scene: {index for index in among if scene.bar is not None and test(scene, index)}


_O = rf"the (?P<other>{_NOUN})"
_SIDES = r"(?P<{}>to the left of|to the right of|above|below)"
_RULES: list[tuple[str, Rule]] = [
    (r"(moves?|goes|go|travels|is moving|are moving) (to the )?left", _way(0, -1)),
    (r"(moves?|goes|go|travels|is moving|are moving) (to the )?right", _way(0, 1)),
    (r"moves? up|goe?s? up|travels upwards|(is|are) moving to the top", _way(1, -1)),
    (r"moves? down|goe?s? down|travels downwards|(is|are) moving to the bottom", _way(1, 1)),
    (r"stays? still|do(es)? not move|never moves?|stays where it is|rests? the whole time", _each(_is_still)),
    (r"moves in a zigzag|zigzags|swings from side to side as it goes", _each(_zigzags)),
    (r"goes around in a circle|moves in a circle|circles|runs in circles", _each(_circles)),
    (r"turns back|turns around and comes back|goes one way and comes back|reverses its way", _each(_turns_back)),
    (r"moves and then stops|comes to a stop|stops halfway through|stops moving", _each(_stops)),
    (r"gets faster|speeds up|accelerates|starts slowly and gets faster and faster", _each(_speeds_up)),
    (r"comes? in late|enters? the scene|comes? into view|comes in from outside", _each(_enters)),
    (r"leaves? the (scene|picture)|goe?s? out of view|moves out of the picture", _each(_leaves)),
    (r"disappears and returns|vanishes and appears again|disappears for a while", _each(_vanishes)),
    (r"move|do not stay still|are in motion", _each(lambda track: not _is_still(track))),
    (
        r"(passes|goes|moves) behind the bar|is covered by the bar for a while",
        _with_bar(lambda scene, index: index < scene.bar.num_behind and _passes(scene, index)),
    ),
    (
        r"(passes|crosses) in front of the bar|moves across the front of the bar",
        _with_bar(lambda scene, index: index >= scene.bar.num_behind and _passes(scene, index)),
    ),
    (rf"(is faster and )?overtakes {_O}|passes the (?P<o2>{_NOUN}) going the same way", _overtakes),
    (rf"starts {_SIDES.format('from')} {_O} and ends {_SIDES.format('to')} it", _crosses),
    (rf"goes from {_SIDES.format('from')} {_O} to {_SIDES.format('to')} it", _crosses),
    (rf"is first {_SIDES.format('from')} {_O} and then {_SIDES.format('to')} it", _crosses),
    (rf"ends up nearest to {_O}|finishes closest to the (?P<o2>{_NOUN})", _distance(-1)),
    (rf"is closest to {_O} at the end", _distance(-1)),
    (rf"starts nearest to {_O}|begins closest to the (?P<o2>{_NOUN})", _distance(0)),
    (rf"is closest to {_O} at the beginning", _distance(0)),
    (
        r"leaves the scene first|is the first to leave|goes out of view before the others",
        _moment(_leaves, of_first=False, sign=1),
    ),
    (
        r"is the last to leave|leaves the scene last|goes out of view after the others that leave",
        _moment(_leaves, of_first=False, sign=-1),
    ),
    (
        r"is the first to come in|comes into view first|enters before the other newcomers",
        _moment(_enters, of_first=True, sign=1),
    ),
    (
        r"is the last to come in|comes into view last|enters after the other newcomers",
        _moment(_enters, of_first=True, sign=-1),
    ),
    (r"moves fastest|is the fastest|is quicker than the others|covers the most ground each second", _best(_pace)),
    (r"would reach the (?P<edge>\w+) edge next", _best(_edge_time)),
    (r"would be the next to hit the (?P<edge>\w+) wall", _best(_edge_time)),
    (r"would get to the (?P<edge>\w+) edge first if they all went on", _best(_edge_time)),
    (
        r"is missing at the start|cannot be seen in the first frame|is not there at the beginning",
        _each(lambda track: not _seen(track)[0]),
    ),
    (
        r"is out of sight for a while|cannot be seen for some time in between|is hidden in the middle",
        lambda _, among, scene: {index for index in among if _is_hidden(scene, index)},
    ),
    (r"rests while the others move|is the only one that does not move", _each(_is_still)),
    (r"moves while the others rest|is the only one that moves", _each(lambda track: not _is_still(track))),
    (r"is furthest to the left|is on the far left|is the leftmost", _extreme(0, 1)),
    (r"is furthest to the right|is on the far right|is the rightmost", _extreme(0, -1)),
    (r"is highest up|is nearest to the top edge|is above the others", _extreme(1, 1)),
    (r"is lowest down|is nearest to the bottom edge|is below the others", _extreme(1, -1)),
    (rf"(is|are) (to the )?left of {_O}|has the (?P<o2>{_NOUN}) to its right", _lies((-1, 0))),
    (rf"(is|are) (to the )?right of {_O}|has the (?P<o2>{_NOUN}) to its left", _lies((1, 0))),
    (rf"(is|are) (above|over) {_O}|has the (?P<o2>{_NOUN}) below it", _lies((0, -1))),
    (rf"(is|are) (below|under) {_O}|has the (?P<o2>{_NOUN}) above it", _lies((0, 1))),
    (rf"is (nearest|closest) to {_O}|has the smallest distance to the (?P<o2>{_NOUN})", _distance(0)),
    (rf"is farthest (away )?from {_O}", _distance(0, -1)),
]
