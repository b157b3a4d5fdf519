"""Everything that can be said of a referring video, each with the things of which alone it is true.

Enters: a `ReferringScene`. Leaves: `Claim` values by family. Does not know: wording, pixels, chance.

    static     one thing by what it is                      the star
    motion     one of several look-alikes by how it moves   the dog that turns back
    relation   ... by what happens between it and others    the dog that overtakes the star
    reasoning  ... by thinking about what is seen           the dog that leaves the scene first
    several    more than one thing                          all dogs that move left
    none       nothing that is there                        the dog that turns back, where none does
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dynin.data.emoji_world import referring_facts as facts
from dynin.data.emoji_world.referring_facts import Truth
from dynin.data.emoji_world.referring_motion import HEADINGS
from dynin.data.emoji_world.referring_scene import ReferringScene, Track
from dynin.data.emoji_world.referring_wording import CATEGORY, DOUBTFUL

Family = Literal["static", "motion", "relation", "reasoning", "several", "none"]
FAMILIES: tuple[Family, ...] = ("static", "motion", "relation", "reasoning", "several", "none")

THING = "thing"
"""The noun for whatever it is."""
DEEDS = (*HEADINGS, *facts.MOTION_OF)
_FIRSTS = {"leaves first": "leaves", "leaves last": "leaves", "enters first": "enters", "enters last": "enters"}
"""Who is first of those that do something is nobody where nobody does it."""
PLURAL_DEEDS = (*HEADINGS, "stays", "moves", "enters", "leaves")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noun:
    """Of what is spoken: a name, a name and a size, a kind ("animal"), or `THING`."""

    name: str
    size: str = ""
    """"small" or "large" where both are there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One thing that can be said."""

    family: Family
    form: Literal["plain", "clause", "rest", "except", "both"]
    noun: Noun
    targets: frozenset[int]
    deed: str = ""
    """A key of the clauses, where a clause is said."""
    heading: str = ""
    """Which way or which edge, where the clause needs it."""
    other: Noun | None = None
    """The thing that the clause or the sentence names beside."""


def may_mean(claim: Claim, name: str) -> bool:
    """Whether things of a name can be among what a claim means, in any scene, by the things that it speaks of alone."""
    if claim.form == "rest":
        return not _covers(claim.noun, name)
    nouns = [claim.noun] if claim.form != "both" or claim.other is None else [claim.noun, claim.other]
    return any(_covers(noun, name) for noun in nouns)


def _covers(noun: Noun, name: str) -> bool:
    if noun.name in CATEGORY:
        return name in CATEGORY[noun.name] | DOUBTFUL[noun.name]
    return noun.name in (THING, name)


def claims(scene: ReferringScene) -> dict[Family, list[Claim]]:
    """All claims by family; a family of which nothing can be said has an empty list."""
    made: dict[Family, list[Claim]] = {family: [] for family in FAMILIES}
    alike = alike_groups(scene)
    made["static"] = list(plain(scene))
    for group in alike:
        noun = noun_of(scene, group[0])
        for deed in DEEDS:
            truths = {index: facts.does(deed, scene.tracks[index]) for index in group}
            made["motion"] += single("motion", noun, truths, deed=deed)
        made["relation"] += _relations(scene, group, noun)
        made["reasoning"] += _reasons(scene, group, noun)
    made["several"] = list(_several(scene, made["motion"], made["static"]))
    made["none"] = list(_nothing(scene))
    return made


def alike_groups(scene: ReferringScene) -> list[list[int]]:
    """Things of one name and size, where there are several."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for index, track in enumerate(scene.tracks):
        kinds.setdefault(track.kind, []).append(index)
    return [group for group in kinds.values() if len(group) > 1]


def noun_of(scene: ReferringScene, index: int) -> Noun:
    """What a thing is called: its size is said where others of its name have another."""
    track = scene.tracks[index]
    is_mixed = len({other.size for other in scene.tracks if other.name == track.name}) > 1
    return Noun(name=track.name, size=track.size if is_mixed else "")


def unique(scene: ReferringScene) -> dict[int, Noun]:
    """The things that their noun alone tells apart."""
    kinds = [track.kind for track in scene.tracks]
    return {index: noun_of(scene, index) for index, kind in enumerate(kinds) if kinds.count(kind) == 1}


def single(family: Family, noun: Noun, truths: dict[int, Truth], **more: object) -> list[Claim]:
    """The claim that one thing does something, if nobody could disagree."""
    true = [index for index, truth in truths.items() if truth]
    if len(true) != 1 or any(truth is None for truth in truths.values()):
        return []
    return [claim_of(family, noun, true, **more)]


def claim_of(family: Family, noun: Noun, targets: Sequence[int], **more: object) -> Claim:
    """A claim, with a clause where no other form is given."""
    values = {"form": "clause", **more}
    return Claim(family=family, noun=noun, targets=frozenset(targets), **values)  # type: ignore[arg-type]


def members_of(scene: ReferringScene, category: str) -> list[int] | None:
    """The things of a kind; None where people could disagree about one."""
    if any(track.name in DOUBTFUL[category] for track in scene.tracks):
        return None
    return [index for index, track in enumerate(scene.tracks) if track.name in CATEGORY[category]]


def plain(scene: ReferringScene) -> Iterator[Claim]:
    """Things that are told apart by what they are."""
    for index, noun in unique(scene).items():
        yield claim_of("static", noun, [index], form="plain")
    for category in CATEGORY:
        members = members_of(scene, category)
        if members is not None and len(members) == 1:
            yield claim_of("static", Noun(name=category), members, form="plain")


def _relations(scene: ReferringScene, group: list[int], noun: Noun) -> Iterator[Claim]:
    tracks = {index: scene.tracks[index] for index in group}
    if scene.bar is not None:
        behind = {index: facts.passes_behind(track) for index, track in tracks.items()}
        yield from single("relation", noun, behind, deed="behind")
        before = {index: facts.passes_before(track, scene.bar) for index, track in tracks.items()}
        yield from single("relation", noun, before, deed="before")
    for other, other_noun in unique(scene).items():
        track_of_other = scene.tracks[other]
        passing = {index: facts.overtakes(track, track_of_other) for index, track in tracks.items()}
        yield from single("relation", noun, passing, deed="overtakes", other=other_noun)
        for heading in HEADINGS:
            crossing = {index: facts.crosses(track, track_of_other, heading) for index, track in tracks.items()}
            yield from single("relation", noun, crossing, deed="crosses", other=other_noun, heading=heading)
        start, end = (facts.nearest(scene, group, other, frame) for frame in (0, -1))
        if start != end:  # where the nearest thing stays the same, no video is needed to tell it
            ends = {"ends nearest": end, "starts nearest": start}
            for deed, target in ends.items():
                if target is not None:
                    yield claim_of("relation", noun, [target], deed=deed, other=other_noun)


def _reasons(scene: ReferringScene, group: list[int], noun: Noun) -> Iterator[Claim]:
    outstanding = {
        "leaves first": facts.first_to_leave(scene, group, is_last=False),
        "leaves last": facts.first_to_leave(scene, group, is_last=True),
        "enters first": facts.first_to_enter(scene, group, is_last=False),
        "enters last": facts.first_to_enter(scene, group, is_last=True),
        "fastest": facts.fastest(scene, group),
    }
    for deed, target in outstanding.items():
        if target is not None:
            yield claim_of("reasoning", noun, [target], deed=deed)
    for heading in HEADINGS:
        target = facts.next_at_edge(scene, group, heading)
        if target is not None:
            yield claim_of("reasoning", noun, [target], deed="edge", heading=heading)
    tracks = {index: scene.tracks[index] for index in group}
    missing: dict[int, Truth] = {index: facts.is_missing_first(track) for index, track in tracks.items()}
    yield from single("reasoning", noun, missing, deed="missing")
    hidden = {index: facts.is_hidden_a_while(track) for index, track in tracks.items()}
    yield from single("reasoning", noun, hidden, deed="hidden")
    if len(group) > 2:
        moving = {index: facts.moves(track) for index, track in tracks.items()}
        resting: dict[int, Truth] = {index: None if it is None else not it for index, it in moving.items()}
        yield from single("reasoning", noun, moving, deed="only moving")
        yield from single("reasoning", noun, resting, deed="only still")


def by_name(scene: ReferringScene) -> dict[str, list[int]]:
    """The things of each name."""
    named: dict[str, list[int]] = {}
    for index, track in enumerate(scene.tracks):
        named.setdefault(track.name, []).append(index)
    return named


def plain_several(scene: ReferringScene) -> Iterator[Claim]:
    """Several things that are told apart from the rest by what they are."""
    everything = range(len(scene.tracks))
    for name, members in by_name(scene).items():
        if len(members) > 1:
            yield claim_of("several", Noun(name=name), members, form="plain")
            if len(everything) - len(members) > 1:
                rest = [index for index in everything if index not in members]
                yield claim_of("several", Noun(name=name), rest, form="rest")
    for category in CATEGORY:
        kind = members_of(scene, category)
        if kind is not None and 1 < len(kind) < len(everything):
            yield claim_of("several", Noun(name=category), kind, form="plain")


def _several(scene: ReferringScene, motion: list[Claim], static: list[Claim]) -> Iterator[Claim]:
    yield from plain_several(scene)
    named = by_name(scene)
    for noun, among in [(THING, list(range(len(scene.tracks)))), *named.items()]:
        for deed in PLURAL_DEEDS:
            truths = [plural_truth(scene, deed, index) for index in among]
            true = [index for index, truth in zip(among, truths, strict=True) if truth]
            if None not in truths and 1 < len(true) < len(among):
                yield claim_of("several", Noun(name=noun), true, deed=deed)
    for claim in motion:
        group = named[claim.noun.name]
        if len(group) > 2 and not claim.noun.size:
            others = [index for index in group if index not in claim.targets]
            yield claim_of("several", claim.noun, others, form="except", deed=claim.deed)
        for plain in static:
            targets = sorted(claim.targets | plain.targets)
            yield claim_of("several", claim.noun, targets, form="both", deed=claim.deed, other=plain.noun)


def plural_truth(scene: ReferringScene, deed: str, index: int) -> Truth:
    """Whether a thing does one of `PLURAL_DEEDS`; None where people could disagree."""
    track = scene.tracks[index]
    return facts.moves(track) if deed == "moves" else facts.does(deed, track)


def _nothing(scene: ReferringScene) -> Iterator[Claim]:
    """What is said of things that are there and true of none; names that are not there are the writer's to add."""
    groups: dict[Noun, list[int]] = {}
    for index in range(len(scene.tracks)):
        groups.setdefault(noun_of(scene, index), []).append(index)
    for noun, group in groups.items():
        tracks = [scene.tracks[index] for index in group]
        for deed in (*DEEDS, *_FIRSTS):
            if all(facts.does(_FIRSTS.get(deed, deed), track) is False for track in tracks):
                yield claim_of("none", noun, [], deed=deed)
        if scene.bar is not None and not any(facts.passes_behind(track) for track in tracks):
            yield claim_of("none", noun, [], deed="behind")
        if scene.bar is not None and all(facts.passes_before(track, scene.bar) is False for track in tracks):
            yield claim_of("none", noun, [], deed="before")
        if not any(facts.is_missing_first(track) for track in tracks):
            yield claim_of("none", noun, [], deed="missing")
        if not any(facts.is_hidden_a_while(track) for track in tracks):
            yield claim_of("none", noun, [], deed="hidden")
        for heading in HEADINGS:
            if all(facts.approaches(track, heading) is False for track in tracks):
                yield claim_of("none", noun, [], deed="edge", heading=heading)
        for other, other_noun in unique(scene).items():
            if other not in group:
                yield from _unrelated(scene, tracks, noun, other, other_noun)


def _unrelated(
    scene: ReferringScene, tracks: Sequence[Track], noun: Noun, other: int, other_noun: Noun
) -> Iterator[Claim]:
    """Relations to another thing that hold for none."""
    reference = scene.tracks[other]
    if all(facts.overtakes(track, reference) is False for track in tracks):
        yield claim_of("none", noun, [], deed="overtakes", other=other_noun)
    for heading in HEADINGS:
        if all(facts.crosses(track, reference, heading) is False for track in tracks):
            yield claim_of("none", noun, [], deed="crosses", other=other_noun, heading=heading)
