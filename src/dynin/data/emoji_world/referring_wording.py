"""The words of referring sentences: what is said of deeds, headings, relations and kinds of things.

Enters: keys of `referring_claim`. Leaves: phrases. Does not know: scenes, truth, chance.
"""

CLAUSES: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "goes to the left", "travels left", "is moving to the left"),
    "right": ("moves right", "goes to the right", "travels right", "is moving to the right"),
    "up": ("moves up", "goes up", "travels upwards", "is moving to the top"),
    "down": ("moves down", "goes down", "travels downwards", "is moving to the bottom"),
    "stays": ("stays still", "does not move", "never moves", "stays where it is", "rests the whole time"),
    "zigzags": ("moves in a zigzag", "zigzags", "swings from side to side as it goes"),
    "circles": ("goes around in a circle", "moves in a circle", "circles", "runs in circles"),
    "turns": ("turns back", "turns around and comes back", "goes one way and comes back", "reverses its way"),
    "stops": ("moves and then stops", "comes to a stop", "stops halfway through", "stops moving"),
    "speeds": ("gets faster", "speeds up", "accelerates", "starts slowly and gets faster and faster"),
    "enters": ("comes in late", "enters the scene", "comes into view", "comes in from outside"),
    "leaves": ("leaves the scene", "goes out of view", "leaves the picture", "moves out of the picture"),
    "vanishes": ("disappears and returns", "vanishes and appears again", "disappears for a while"),
    "behind": (
        "passes behind the bar", "goes behind the bar", "moves behind the bar", "is covered by the bar for a while",
    ),
    "before": ("passes in front of the bar", "crosses in front of the bar", "moves across the front of the bar"),
    "overtakes": (
        "overtakes the {other}", "passes the {other} going the same way", "is faster and overtakes the {other}",
    ),
    "crosses": (
        "starts {from} the {other} and ends {to} it",
        "goes from {from} the {other} to {to} it",
        "is first {from} the {other} and then {to} it",
    ),
    "ends nearest": (
        "ends up nearest to the {other}", "is closest to the {other} at the end", "finishes closest to the {other}",
    ),
    "starts nearest": (
        "starts nearest to the {other}", "is closest to the {other} at the beginning", "begins closest to the {other}",
    ),
    "leaves first": ("leaves the scene first", "is the first to leave", "goes out of view before the others"),
    "leaves last": ("is the last to leave", "leaves the scene last", "goes out of view after the others that leave"),
    "enters first": ("is the first to come in", "comes into view first", "enters before the other newcomers"),
    "enters last": ("is the last to come in", "comes into view last", "enters after the other newcomers"),
    "fastest": ("moves fastest", "is the fastest", "is quicker than the others", "covers the most ground each second"),
    "edge": (
        "would reach the {edge} edge next", "would be the next to hit the {edge} wall",
        "would get to the {edge} edge first if they all went on",
    ),
    "missing": ("is missing at the start", "cannot be seen in the first frame", "is not there at the beginning"),
    "hidden": ("is out of sight for a while", "cannot be seen for some time in between", "is hidden in the middle"),
    "only still": ("rests while the others move", "is the only one that does not move"),
    "only moving": ("moves while the others rest", "is the only one that moves"),
    "leftmost": ("is furthest to the left", "is on the far left", "is the leftmost"),
    "rightmost": ("is furthest to the right", "is on the far right", "is the rightmost"),
    "highest": ("is highest up", "is nearest to the top edge", "is above the others"),
    "lowest": ("is lowest down", "is nearest to the bottom edge", "is below the others"),
    "left of": ("is to the left of the {other}", "is left of the {other}", "has the {other} to its right"),
    "right of": ("is to the right of the {other}", "is right of the {other}", "has the {other} to its left"),
    "above": ("is above the {other}", "is over the {other}", "has the {other} below it"),
    "below": ("is below the {other}", "is under the {other}", "has the {other} above it"),
    "nearest": ("is nearest to the {other}", "is closest to the {other}", "has the smallest distance to the {other}"),
    "farthest": ("is farthest from the {other}", "is farthest away from the {other}"),
}  # fmt: skip
"""What one thing does. The clause completes "the dog that ..." and "which dog ...?"."""

PLURAL_CLAUSES: dict[str, tuple[str, ...]] = {
    "left": ("move left", "go to the left", "are moving to the left"),
    "right": ("move right", "go to the right", "are moving to the right"),
    "up": ("move up", "go up", "are moving to the top"),
    "down": ("move down", "go down", "are moving to the bottom"),
    "stays": ("stay still", "do not move", "never move", "rest the whole time"),
    "moves": ("move", "do not stay still", "are in motion"),
    "enters": ("come in late", "enter the scene", "come into view"),
    "leaves": ("leave the scene", "go out of view", "leave the picture"),
    "left of": ("are to the left of the {other}", "are left of the {other}"),
    "right of": ("are to the right of the {other}", "are right of the {other}"),
    "above": ("are above the {other}", "are over the {other}"),
    "below": ("are below the {other}", "are under the {other}"),
}
"""What several things do: "all dogs that ..."."""

SIDE: dict[str, tuple[str, str]] = {
    "right": ("to the left of", "to the right of"),
    "left": ("to the right of", "to the left of"),
    "down": ("above", "below"),
    "up": ("below", "above"),
}
"""Where a thing that crosses begins and ends, by its heading."""

EDGE: dict[str, str] = {"left": "left", "right": "right", "up": "top", "down": "bottom"}

ONE: tuple[str, ...] = (
    "the {noun} that {clause}", "the {noun} that {clause}", "the {noun} which {clause}",
    "find the {noun} that {clause}", "which {noun} {clause}?", "segment the {noun} that {clause}",
    "show me the {noun} that {clause}", "where is the {noun} that {clause}?",
)  # fmt: skip
ONE_PLAIN: tuple[str, ...] = (
    "the {noun}", "the {noun}", "find the {noun}", "segment the {noun}", "show me the {noun}", "where is the {noun}?",
    "the {noun} in the {medium}",
)  # fmt: skip
SEVERAL: tuple[str, ...] = (
    "all {noun} that {clause}", "the {noun} that {clause}", "find all {noun} that {clause}", "which {noun} {clause}?",
    "segment all {noun} that {clause}",
)  # fmt: skip
SEVERAL_PLAIN: tuple[str, ...] = ("all {noun}", "all the {noun}", "find all {noun}", "segment all {noun}")
REST: tuple[str, ...] = ("everything except the {noun}", "all things that are not {noun}", "all but the {noun}")
EXCEPT: tuple[str, ...] = ("all {noun} except the one that {clause}", "every {one} but the one that {clause}")
BOTH: tuple[str, ...] = ("the {noun} that {clause} and the {other}", "the {other} and the {noun} that {clause}")

_MEMBERS = {
    "animal": "dog, cat, fish, frog, pig, panda, penguin, butterfly, crab, owl, turtle, elephant, lion, bee, snail, "
    "whale, horse, monkey, mouse, sheep, chick, tiger, fox",
    "food": "red apple, green apple, pumpkin, banana, strawberry, carrot, mushroom, pizza, burger, donut, cake, "
    "watermelon, lemon, peach, pineapple, cupcake, lollipop, cookie",
    "vehicle": "rocket, bus, taxi, airplane, sailboat, truck, tractor, train, helicopter",
    "instrument": "guitar, drum, violin, trumpet",
}
_DOUBTFUL = {"animal": "dinosaur, alien", "food": "fish, crab", "vehicle": "", "instrument": "bell"}

CATEGORY: dict[str, frozenset[str]] = {key: frozenset(names.split(", ")) for key, names in _MEMBERS.items()}
"""Kinds of things and what belongs to them."""
DOUBTFUL: dict[str, frozenset[str]] = {key: frozenset(names.split(", ")) for key, names in _DOUBTFUL.items()}
"""What people could disagree about; a kind is not spoken of where one of these is in view."""
CATEGORY_NOUNS: dict[str, tuple[str, str]] = {
    "animal": ("animal", "animals"),
    "food": ("thing that one can eat", "things that one can eat"),
    "vehicle": ("vehicle", "vehicles"),
    "instrument": ("musical instrument", "musical instruments"),
}
