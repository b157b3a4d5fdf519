"""Recipes: the default and its file, rules, layers, and everything that can be wrong in one."""

from pathlib import Path

import pytest

from dynin.errors import ConfigError
from dynin.merging import recipe as recipes
from dynin.merging.parts import parts_of
from dynin.merging.plan import coefficients
from dynin.merging.recipe import MODALITY_DISENTANGLED, Recipe, Rule
from dynin.model.config import EMBEDDED, ModelConfig

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ModelConfig(**{**EMBEDDED.to_dict(), "num_layers": 5})
PARTS = list(parts_of(CONFIG))


def strength_of(recipe, group, layer=None, num_others=1, tensor=""):
    found = coefficients(recipe, PARTS, CONFIG.num_layers, num_others)
    values = {
        how.strength
        for part, how in zip(PARTS, found, strict=True)
        if part.group == group and part.layer == layer and tensor in part.tensor
    }
    assert len(values) == 1
    return values.pop()


def test_the_default_keeps_rows_with_the_model_that_learned_them():
    for group, strength in {"text": 0, "specials": 0, "image": 0, "padding": 0, "speech": 1, "specials_new": 1}.items():
        assert strength_of(MODALITY_DISENTANGLED, group) == strength
    assert strength_of(MODALITY_DISENTANGLED, "final_norm") == 0.5
    assert {strength_of(MODALITY_DISENTANGLED, group, 3) for group in ("attention", "mlp", "norms")} == {0.5}


def test_the_default_is_the_file_of_its_name():
    assert recipes.find(ROOT / "configs/merge/modality-disentangled.toml") == MODALITY_DISENTANGLED
    assert recipes.find("modality-disentangled") is MODALITY_DISENTANGLED


@pytest.mark.parametrize("path", sorted((ROOT / "configs/merge").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_can_be_resolved(path):
    recipe = recipes.find(path)
    assert recipe.name == path.stem
    num_others = max(1, len(recipe.weights))
    assert len(coefficients(recipe, PARTS, CONFIG.num_layers, num_others)) == len(PARTS)


def test_knots_are_spread_over_the_layers_and_lines_lie_between():
    recipe = Recipe(name="ramp", strength=(0.0, 1.0), rules=(Rule(tables=("embed", "output"), strength=(0.0,)),))
    assert [strength_of(recipe, "mlp", layer) for layer in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert strength_of(recipe, "final_norm") == 1
    each = Recipe(name="each", rules=(Rule(groups=("mlp",), strength=(0.1, 0.7, 0.3, 0.9, 0.2)),))
    assert [strength_of(each, "mlp", layer) for layer in range(5)] == [0.1, 0.7, 0.3, 0.9, 0.2]
    some = Recipe(
        name="some", strength=(0.5,), rules=(Rule(groups=("mlp",), first_layer=2, last_layer=4, strength=(0.2, 0.4)),)
    )
    assert [strength_of(some, "mlp", layer) for layer in (1, 2, 4)] == [0.5, 0.2, 0.4]
    assert strength_of(some, "mlp", 3) == pytest.approx(0.3)


def test_later_rules_win_and_selections_are_combined():
    recipe = Recipe(
        name="rules",
        rules=(
            Rule(groups=("attention",), strength=(0.1,)),
            Rule(names=r"attention[.](query|key)", first_layer=1, strength=(0.2,)),
            Rule(groups=("image",), tables=("output",), strength=(0.3,)),
        ),
    )
    assert strength_of(recipe, "attention", 0) == 0.1
    assert strength_of(recipe, "attention", 1, tensor="query") == 0.2
    assert strength_of(recipe, "attention", 1, tensor="value") == 0.1
    assert strength_of(recipe, "image", tensor="output") == 0.3
    assert strength_of(recipe, "image", tensor="embed") == 0.5


def test_a_rule_may_leave_a_sparse_method():
    recipe = Recipe(name="mixed", method="ties", density=(0.2,), rules=(Rule(groups=("norms",), method="linear"),))
    found = coefficients(recipe, PARTS, CONFIG.num_layers, 1)
    kinds = {(how.method, how.density) for part, how in zip(PARTS, found, strict=True) if part.group == "norms"}
    assert kinds == {("linear", (1.0,))}


def test_a_rule_is_one_line_of_toml():
    assert recipes.read_rule('groups = "mlp", strength = 0.3, first_layer = 2') == Rule(
        groups=("mlp",), strength=(0.3,), first_layer=2
    )


def test_values_are_changed_where_they_are_given():
    more = Rule(groups=("mlp",), strength=(0.2,))
    made = recipes.changed(MODALITY_DISENTANGLED, [more], strength=[0.3], seed=4, method=None)
    assert (made.strength, made.seed, made.method) == ((0.3,), 4, "linear")
    assert made.rules == (*MODALITY_DISENTANGLED.rules, more)
    sparse = recipes.changed(made, method="ties", density=0.2)
    assert (sparse.method, sparse.density) == ("ties", (0.2,))
    assert recipes.changed(sparse, method="linear").density == (1.0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nmetod = "ties"', "unknown setting 'metod'; did you mean 'method'"),
        ('name = "x"\nmethod = "tise"', "did you mean 'ties'"),
        ('name = "x"\n[[rules]]\ngroups = ["speach"]', "did you mean 'speech'"),
        ('name = "x"\n[[rules]]\ntables = "embedding"', "did you mean 'embed'"),
        ('name = "x"\n[[rules]]\nnames = "("', "no regular expression"),
        ('name = "x"\n[[rules]]\nstrenght = 0.2', "unknown setting 'rules\\[0\\].strenght'"),
        ('name = "x"\nrules = 3', "expected"),
        ('name = "x"\nstrength = "half"', "expected float"),
        ('name = "x"\nstrength = []', "strength has no number"),
        ('name = "x"\nstrength = nan', "expected a number"),
        ('name = "x"\nmethod = "ties"\ndensity = 0.0', "expected more than 0"),
        ('name = "x"\ndensity = 0.5', "linear keeps everything"),
        ('name = "x"\n[[rules]]\nmethod = "slerp"\ndensity = 0.5', "slerp keeps everything"),
        ("strength = 0.5", "'name' is missing"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_names_what_is_wrong(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        recipes.find(tmp_path / "a.toml")


def test_a_recipe_that_does_not_exist_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        recipes.find("unifrom")
    with pytest.raises(ConfigError, match="cannot read"):
        recipes.find("none.toml")
    with pytest.raises(ConfigError, match="is no TOML"):
        recipes.read_rule("groups: mlp")


@pytest.mark.parametrize(
    ("recipe", "num_others", "message"),
    [
        (Recipe(name="x"), 2, "0 weights for 2 models"),
        (Recipe(name="x", weights=(0.5, 0.6)), 2, "add up to 1.1"),
        (Recipe(name="x", weights=(0.5,)), 1, "add up to 0.5"),
        (Recipe(name="x", method="slerp", weights=(0.5, 0.5)), 2, "expected one model"),
        (Recipe(name="x", strength=(1.5,)), 1, "expected 0 to 1"),
        (Recipe(name="x", method="slerp", strength=(-0.1,)), 1, "expected 0 to 1"),
        (Recipe(name="x", method="ties", weights=(1.0, 1.0, 1.0), density=(0.5, 0.2)), 3, "2 densities for 3 models"),
        (Recipe(name="x", strength=(0.1, 0.9)), 1, "which is in no layer"),
        (Recipe(name="x", rules=(Rule(first_layer=5, strength=(0.1,)),)), 1, "layers 0 to 4"),
        (Recipe(name="x", rules=(Rule(names="atention", strength=(0.1,)),)), 1, "rule 1 of 'x' selects nothing"),
        (Recipe(name="x", rules=(Rule(groups=("text",), first_layer=1, strength=(0.1,)),)), 1, "selects nothing"),
        (Recipe(name="x", rules=(Rule(groups=("mlp",), density=(0.5,)),)), 1, "linear keeps everything"),
    ],
)
def test_a_recipe_that_does_not_fit_the_models_is_refused(recipe, num_others, message):
    with pytest.raises(ConfigError, match=message):
        coefficients(recipe, PARTS, CONFIG.num_layers, num_others)


def test_task_arithmetic_may_go_beyond_the_model():
    recipe = Recipe(name="x", method="task_arithmetic", strength=(1.5,), weights=(0.7, -0.2))
    assert strength_of(recipe, "mlp", 0, num_others=2) == 1.5
