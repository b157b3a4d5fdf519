"""Plain English sentences outside the world, so that the speech codec hears more than the world's own words.

Enters: a numpy generator. Leaves: sentences of 3 to 14 words, in lower case without punctuation. Does not know voices.
"""

import numpy as np

PEOPLE = tuple(
    "my_mother the_teacher our_neighbor a_young_girl the_captain his_brother everybody the_children somebody "
    "the_old_man the_doctor your_friend the_farmer a_stranger the_judge her_uncle".split()
)
VERBS = tuple(
    "found carried watched painted borrowed noticed described finished measured brought followed enjoyed "
    "washed chose forgot pushed visited caught bought repaired heard moved opened touched".split()
)
ADJECTIVES = tuple(
    "quiet bright wooden heavy ancient yellow gentle narrow curious frozen shiny broken empty purple "
    "large round smooth strange cheap fresh warm thick orange square tiny".split()
)
NOUNS = tuple(
    "bicycle garden window letter mountain kitchen blanket engine bridge ocean village machine pencil chicken "
    "television jacket treasure thunder puzzle orchestra lemon giraffe yacht umbrella feather whistle zebra "
    "violin jungle mushroom octopus sandwich kangaroo vegetable photograph elephant judge shoe boy voice "
    "church measure beige mouth breath leather young ring song tongue hat cup".split()
)
PLACES = tuple(
    "in_the_morning near_the_river under_the_table behind_the_house after_the_rain with_great_joy "
    "before_nine_thirty on_a_cold_day at_the_station between_two_hills without_a_sound every_thursday "
    "in_the_upper_corner across_the_road inside_the_box next_to_the_church during_the_show".split()
)
QUESTIONS = tuple("why_did where_did how_did when_did did".split())
PRESENT = tuple(
    "find carry watch paint borrow notice describe finish measure bring follow enjoy choose forget push "
    "visit catch buy repair hear move open touch".split()
)
NUMBERS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety".split()
)


def general_sentence(rng: np.random.Generator) -> str:
    """One sentence drawn from a few patterns; equal generators give equal sentences."""
    pattern = int(rng.integers(6))
    person, verb, noun, place = (_pick(rng, words) for words in (PEOPLE, VERBS, NOUNS, PLACES))
    adjective, other = _pick(rng, ADJECTIVES), _pick(rng, NOUNS)
    if pattern == 0:
        text = f"{person} {verb} the {adjective} {noun} {place}"
    elif pattern == 1:
        text = f"{_pick(rng, QUESTIONS)} {person} {_pick(rng, PRESENT)} the {noun} and the {other}"
    elif pattern == 2:
        text = f"there are {_pick(rng, NUMBERS)} {adjective} things {place}"
    elif pattern == 3:
        text = f"the {noun} is more {adjective} than the {other}"
    elif pattern == 4:
        numbers = [_pick(rng, NUMBERS) for _ in range(int(rng.integers(3, 7)))]
        text = " ".join(numbers)
    else:
        text = f"{person} {verb} this {noun} but not that {adjective} {other}"
    return text.replace("_", " ")


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    """One of some words."""
    return words[int(rng.integers(len(words)))]
