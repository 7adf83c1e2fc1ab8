import pytest

from crce.concepts import (
    ConceptSet,
    Related,
    atlas,
    find_concepts,
    library,
    read_concepts,
    write_concepts,
)
from crce.errors import ConceptError
from crce.suggest.phrases import same_head


@pytest.fixture
def small_atlas(tmp_path, monkeypatch):
    """An atlas of two files in place of the bundled one."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "people.yaml").write_text("- target: Ada Lovelace\n  kind: person\n", encoding="utf-8")
    (folder / "animals.yaml").write_text(
        "- target: cat\n"
        "  corefs: {Very High: [kitty, house cat], Low: [mouser]}\n"
        "  corefs_held_out: {High: [feline]}\n"
        "  retains: {Very High: [dog]}\n"
        "- target: airplane\n"
        "  corefs: [plane]\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(library, "_names", library._names.__wrapped__)
    monkeypatch.setattr(library, "ATLAS", folder)
    return folder


def test_the_atlas_is_read_from_every_file_and_sorted(small_atlas):
    assert list(atlas()) == ["Ada Lovelace", "airplane", "cat"]
    assert atlas()["cat"] == ConceptSet(
        "cat",
        corefs=(
            Related("kitty", 1.0, "atlas"),
            Related("house cat", 1.0, "atlas"),
            Related("mouser", 0.4, "atlas"),
            Related("feline", 0.8, "atlas", held_out=True),
        ),
        retains=(Related("dog", 1.0, "atlas"),),
    )


@pytest.mark.parametrize("name", ["Ada Lovelace", "ada lovelace", " ADA  LOVELACE "])
def test_atlas_names_are_found_in_any_case(small_atlas, name):
    assert find_concepts(name).target == "Ada Lovelace"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Kitty", "'Kitty' is a coref of 'cat': use 'cat'."),
        ("arplane", "Did you mean 'airplane'?"),
        ("fleine", "Did you mean 'cat', of which 'feline' is a coref?"),
        ("submarine boat", "`crce ls` lists the atlas"),
        ("", "For your own set, write 'target: ...'"),
        ("x" * 5000, "neither in the atlas nor a file"),
        ("a\0b", "neither in the atlas nor a file"),
    ],
)
def test_an_unknown_name_says_what_there_is_and_how_to_write_a_set(small_atlas, name, message):
    with pytest.raises(ConceptError) as caught:
        find_concepts(name)
    assert message in str(caught.value)
    assert "YAML file" in str(caught.value)


def test_files_are_found_by_path_and_an_atlas_name_wins_over_a_file_without_a_suffix(
    small_atlas, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    own = ConceptSet("my cat", corefs=(Related("my kitty"),))
    write_concepts(tmp_path / "cat", own)
    write_concepts(tmp_path / "own.yml", own)
    assert find_concepts("cat").target == "cat"
    for path in ("./cat", "own.yml", tmp_path / "cat", str(tmp_path / "own.yml")):
        assert find_concepts(path) == own


def test_one_set_of_a_yaml_list_is_chosen_by_name(small_atlas):
    path = small_atlas / "animals.yaml"
    assert read_concepts(f"{path}#Airplane").target == "airplane"
    with pytest.raises(ConceptError, match="contains 2 concept sets.*#cat': cat, airplane"):
        read_concepts(path)


def test_a_file_with_a_hash_in_its_name_is_read(tmp_path):
    write_concepts(tmp_path / "cat#2.yaml", ConceptSet("cat"))
    assert read_concepts(tmp_path / "cat#2.yaml") == ConceptSet("cat")


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    write_concepts(tmp_path / "cat.yaml", ConceptSet("cat"))
    with pytest.raises(ConceptError, match=r"There is no file .*cats.yaml. Did you mean 'cat.yaml'\?"):
        find_concepts(str(tmp_path / "cats.yaml"))
    with pytest.raises(ConceptError, match="name an entry of the atlas"):
        read_concepts(tmp_path / "nowhere" / "zebra.yaml")


def test_a_folder_points_to_the_set_inside(tmp_path):
    with pytest.raises(ConceptError, match="is a folder, not a concept file. Name a YAML or JSON file"):
        find_concepts(str(tmp_path))
    write_concepts(tmp_path / "concepts.yaml", ConceptSet("cat"))
    with pytest.raises(ConceptError, match=r"Use .*concepts.yaml"):
        find_concepts(str(tmp_path))


def test_a_file_that_is_not_utf8_names_the_line_and_the_byte(tmp_path):
    path = tmp_path / "cat.yaml"
    path.write_bytes("target: cat\ncorefs: [Beyoncé]\n".encode("latin-1"))
    with pytest.raises(ConceptError, match="cat.yaml:2: byte 0xe9 is not UTF-8 text. Save the file as UTF-8"):
        read_concepts(path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "cat.yaml"
    path.write_bytes(b"\xef\xbb\xbftarget: cat\r\ncorefs:\r\n  - kitty\r\n")
    assert read_concepts(path) == ConceptSet("cat", corefs=(Related("kitty"),))


def test_changing_the_returned_atlas_changes_nothing():
    atlas().clear()
    assert atlas()


def test_the_bundled_atlas_has_enough_targets_with_enough_phrases():
    sets = atlas()
    assert len(sets) == len(library._atlas(library.ATLAS)) >= 60  # none is in two files
    assert list(sets) == sorted(sets, key=str.casefold)
    short = {
        name: counts
        for name, c in sets.items()
        if (counts := tuple(map(len, (c.train_corefs, c.held_out_corefs, c.train_retains, c.held_out_retains))))
        and any(count < least for count, least in zip(counts, (8, 4, 8, 4), strict=True))
    }
    assert not short
    assert {r.source for c in sets.values() for r in c.corefs + c.retains} == {"atlas"}
    assert {"cat", "dog", "airplane", "horse", "frog", "ship", "truck"} <= set(sets)
    assert {"object", "character", "person", "style", "explicit"} <= {c.kind for c in sets.values()}


def test_no_held_out_coref_of_the_atlas_only_rewords_the_target_or_what_is_trained():
    rewords = [
        (c.target, held.text, other)
        for c in atlas().values()
        for held in c.held_out_corefs
        for other in (c.target, *(r.text for r in c.train_corefs))
        if same_head(held.text, other)
    ]
    assert not rewords
