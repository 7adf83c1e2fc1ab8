"""Settings of a method: its own model, refused elsewhere, and read back from records."""

from __future__ import annotations

import pytest

from crce.config import ErasureConfig, all_settings, load_config, recipe_names
from crce.errors import ConfigError
from crce.methods import METHODS, load_method
from crce.methods.closed_form import ClosedFormMethod
from crce.methods.gradient import GradientMethod


def test_an_erasure_config_is_an_instance_of_its_methods_model():
    config = ErasureConfig(method="spm", spm_states=2)
    assert type(config).__name__ == "SPMConfig"
    assert config.spm_states == 2
    assert "ridge" not in config.model_dump()
    assert type(ErasureConfig()) is ErasureConfig
    assert ErasureConfig(**config.model_dump(mode="json")) == config
    assert type(config.model_copy(update={"seed": 3})) is type(config)


@pytest.mark.parametrize("value", [1, 9])  # the default is refused too: whoever gives it expects it to act
def test_settings_of_another_method_are_refused(tmp_path, value):
    words = "rece_rounds is a setting of rece, not of esd: leave it out"
    for wrong in (
        lambda: ErasureConfig(method="esd", rece_rounds=value),
        lambda: load_config(None, {"method": "esd", "rece_rounds": value}),
        lambda: load_config("rece", {"method": "esd"}),
    ):
        with pytest.raises(ConfigError, match=words):
            wrong()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"method: esd\nrank: 0\nrece_rounds: {value}\n")
    with pytest.raises(ConfigError, match="rank is 0") as raised:  # with every other fault
        load_config(recipe)
    assert words in str(raised.value)
    with pytest.raises(ConfigError, match="ridge is a setting of uce, rece, mace, not of speed"):
        load_config(None, {"method": "speed", "ridge": 1.0})


def test_unknown_methods_and_settings_name_the_nearest():
    with pytest.raises(ConfigError, match="no method 'ecd'. Use one of: esd, .*Did you mean 'esd'"):
        load_config(None, {"method": "ecd"})
    with pytest.raises(ConfigError, match="'spm_statse', did you mean spm_states"):
        load_config(None, {"method": "spm", "spm_statse": 3})


def _numbers() -> list[tuple[str, str]]:
    """Every number among the settings, with a method that has it."""
    known = all_settings().items()
    kinds = {name: str(info.field.annotation) for name, info in known}
    return [
        (name, (*info.methods, "esd")[0]) for name, info in known if "int" in kinds[name] or "float" in kinds[name]
    ]


@pytest.mark.parametrize(("name", "method"), _numbers())
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400", "1.0e+30", "true", str(10**23)])
def test_numbers_are_finite_and_bounded(tmp_path, name, method, value):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"method: {method}\n{name}: {value}\n")
    with pytest.raises(ConfigError, match=f"{name} is "):
        load_config(recipe, {"method": method})


@pytest.mark.parametrize(("scenes", "fault"), [("", "valid tuple"), ("[a house, ' ']", "a scene is empty")])
def test_scenes_are_phrases(tmp_path, scenes, fault):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"scenes: {scenes}\n")
    with pytest.raises(ConfigError, match=f"scenes is .*{fault}"):
        load_config(recipe)


def test_a_number_beyond_its_bound_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="rank is 100000000: .* 4096, as layers are no wider"):
        ErasureConfig(rank=10**8)


def test_what_a_run_records_are_its_settings():
    config = load_config(None, {"method": "uce", "ridge": 0.25})
    record = config.model_dump(mode="json")
    assert ErasureConfig(**record) == config
    with pytest.raises(ConfigError, match="unknown setting 'colour'"):
        ErasureConfig(**record | {"colour": 3})
    with pytest.raises(ConfigError, match="no method 'gone'"):
        ErasureConfig(**record | {"method": "gone"})


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_valid(recipe):
    load_config(recipe)


def test_the_steps_of_a_recipe_are_those_of_each_target_and_given_ones_of_all():
    assert load_config(targets=3).steps == 3 * load_config().steps
    assert load_config(overrides={"steps": 7}, targets=3).steps == 7
    assert load_config("uce", targets=3).steps == 1


@pytest.mark.parametrize("name", list(METHODS))
def test_every_entry_is_what_it_says(name):
    entry = METHODS[name]
    assert isinstance(load_method(name), ClosedFormMethod if entry.solved else GradientMethod)
    assert load_config(None, {"method": name}).method == name
    assert entry.description
