"""The pages, as a browser without scripts gets them."""

from __future__ import annotations

import shutil
import time

import pytest

from crce.cli.flags import flag_words
from crce.concepts import read_concepts
from crce.suggest.memory import Memory
from crce.web.plan import describe, read_form, recipe
from crce.web.queue import WebJob
from crce.web.runs import Runs
from crce.web.site import HOME, Site, continued


@pytest.fixture
def draft(client):
    """The address of a draft of "cat", as the atlas has it."""
    return client.post("/drafts", data={"concept": "cat"}).url.path


@pytest.fixture
def queued(client, monkeypatch):
    """The jobs that are queued; none is started."""
    here = client.app.state.site
    monkeypatch.setattr(here.queue, "_start", lambda job: None)
    return here.queue


def number_of(page: str, text: str) -> str:
    """The number of a phrase in the table."""
    row = next(part for part in page.split('class="phrase ')[1:] if f"<strong>{text}</strong>" in part)
    return row.split('data-number="')[1].split('"')[0]


def test_health(client):
    assert client.get("/health").json() == {"status": "ok"}


def test_every_page_has_a_title_and_one_heading(client):
    for path in ("/", "/runs", "/queue", "/settings", "/runs/cat-1", "/compare?a=cat-1&b=cat-1"):
        page = client.get(path)
        assert page.status_code == 200, path
        assert page.text.count("<h1>") == 1, path
        assert "<title>" in page.text, path


def test_the_words_of_a_concept_can_be_looked_over(client, draft):
    page = client.get(draft).text
    kitty, dog = number_of(page, "kitty"), number_of(page, "dog")
    client.post(draft, data={"command": f"reject {kitty}"})
    client.post(draft, data={"command": f"move {dog}"})
    client.post(draft, data={"command": "add coref", "words": "catto"})
    concepts = client.get(f"{draft}/concepts.yaml").text
    assert "kitty" not in concepts
    assert "catto" in concepts.split("retains:")[0]
    assert "text: dog" in concepts.split("retains:")[0]
    client.post(draft, data={"command": "undo"})
    assert "catto" not in client.get(f"{draft}/concepts.yaml").text
    decided = {(d.text, d.side): d.accepted for d in Memory().decisions()}
    assert decided[("kitty", "coref")] is False
    assert decided[("dog", "coref")] is True


def test_a_draft_survives_the_server(client, root, draft):
    client.post(draft, data={"command": "add coref", "words": "moggy"})
    again = Site(root)
    name = draft.rsplit("/", 1)[1]
    assert "moggy" in [r.text for r in again.drafts.review(again.drafts.get(name)).concepts.corefs]


def suggested(client, concept: str) -> str:
    """The page of a concept that is not in the atlas, once its words are there or are known not to be."""
    path = client.post("/drafts", data={"concept": concept}).url.path
    deadline = time.monotonic() + 60
    while "Looking for" in (page := client.get(path).text):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return page


def test_a_concept_that_is_not_in_the_atlas_is_suggested(client):
    page = suggested(client, "walrus")
    assert "Erased with it" in page
    assert "sea lion" in page or "seal" in page


def test_a_typo_is_told_and_nothing_is_lost(client):
    assert "No words were found" in suggested(client, "xqzwv")
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("command", ["list", "quit", " "])
def test_a_command_that_is_no_change_says_so(client, draft, command):
    assert "changes nothing in a review" in client.post(draft, data={"command": command}).text


def test_a_command_that_cannot_be_carried_out_says_why(client, draft):
    for command, words, said in (
        ("reject 99", "", "There is no number 99"),
        ("fly 3", "", "There is no command"),
        ("add coref", "cat", "is the target"),
        ("add coref", "x" * 400, "300 characters"),
    ):
        answer = client.post(draft, data={"command": command, "words": words}, headers={"hx-request": "true"})
        assert answer.status_code == 400
        assert said in answer.text
        assert "<" not in answer.text


def test_markup_in_names_is_shown_as_text(client, draft):
    hostile = "<script>alert(1)</script>"
    page = client.post(draft, data={"command": "add coref", "words": hostile}).text
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_a_set_can_be_uploaded_and_its_faults_are_named(client):
    good = {"file": ("cat.yaml", b"target: cat\ncorefs: [moggy]\n")}
    assert "moggy" in client.post("/drafts/upload", files=good, data={"model": "demo"}).text
    bad = client.post("/drafts/upload", files={"file": ("cat.yaml", b"target: cat\ncorefs: 3\n")})
    assert bad.status_code == 400
    assert "Write a list of phrases" in bad.text
    big = client.post("/drafts/upload", files={"file": ("cat.yaml", b"#" * 1_400_000)})
    assert "bytes" in big.text
    assert client.post("/drafts/upload", files={"file": ("cat.yaml", b"\xff\xfe")}).status_code == 400


def test_the_plan_is_in_plain_words_and_starts_a_job(client, draft, queued, root):
    page = client.get(f"{draft}/plan?method=uce").text
    assert "without training" in page
    assert "ridge" in page
    answer = client.post(f"{draft}/start", data={"method": "esd", "steps": "7", "crce": "no", "images": "2"})
    job = queued.jobs()[0]
    assert (job.run, job.title) == ("cat-2", "Erase cat")
    assert answer.url.path == "/runs/cat-2"
    assert "Waiting in the queue" in answer.text
    words = " ".join(job.arguments)
    assert "--method esd" in words
    assert "--steps 7" in words
    assert "--no-crce" in words
    assert "--images-per-prompt 2" in words
    assert read_concepts(root / "cat-2" / "concepts.yaml").target == "cat"


def test_a_button_that_is_pressed_twice_begins_one_run(client, draft, queued):
    for _ in range(2):
        assert client.post(f"{draft}/start", data={"method": "uce", "once": "form"}).url.path == "/runs/cat-2"
    assert len(queued.jobs()) == 1


def test_the_words_of_a_run_are_changed_in_a_new_draft(client):
    page = client.post("/runs/cat-1/words")
    assert page.url.path.startswith("/drafts/")
    assert number_of(page.text, "kitty")


def test_a_setting_that_cannot_be_used_makes_no_run(client, draft, queued, root):
    answer = client.post(f"{draft}/start", data={"method": "esd", "steps": "0"})
    assert answer.status_code == 400
    assert "steps is &#39;0&#39;: input should be greater than" in answer.text
    assert sorted(path.name for path in root.iterdir()) == [HOME, "cat-1"]
    assert queued.jobs() == []


def test_a_form_says_only_what_differs_from_the_recipe():
    config = recipe("esd", "demo", "object")
    form = {setting.name: setting.value for setting in describe(config)}
    assert read_form(config, form) == {}
    form |= {"steps": "9", "learning_rate": "0.01", "crce": "no", "scenes": "a house\na tree"}
    changed = read_form(config, form)
    assert changed == {"steps": "9", "learning_rate": "0.01", "crce": False, "scenes": ["a house", "a tree"]}
    assert flag_words(changed)[-4:] == ["--scenes", "a house", "--scenes", "a tree"]


def test_a_run_shows_its_pictures_numbers_and_verdict(client):
    page = client.get("/runs/cat-1").text
    assert "Before and after" in page
    assert 'class="verdict"' in page
    assert "In numbers" in page
    source = page.split('slot="second" src="')[1].split('"')[0].replace("&amp;", "&")
    image = client.get(source)
    assert image.headers["content-type"] == "image/webp"
    assert client.get("/runs/cat-1/report.html").text.startswith("<!doctype html>")


def test_two_runs_are_compared(client, root):
    page = client.get("/compare?a=cat-1&b=cat-1").text
    assert page.count("Corefs erased") == 2


def test_runs_are_searched(client):
    assert "cat-1" in client.get("/runs?q=esd+cat").text
    assert "No run fits" in client.get("/runs?q=dragon").text
    assert "No run fits" in client.get("/runs?kind=style").text


def test_a_deleted_run_comes_back(client, root):
    page = client.post("/runs/cat-1/delete").text
    assert "cat-1 is in the trash" in page
    assert not (root / "cat-1").exists()
    assert client.post("/trash/cat-1/restore").url.path == "/runs/cat-1"
    assert (root / "cat-1" / "adapter.safetensors").is_file()


def test_a_run_that_was_deleted_after_one_of_the_same_name_comes_back_itself(client, root):
    shutil.copytree(root / "cat-1", root / "kept")
    client.post("/runs/cat-1/delete")
    (root / "kept").rename(root / "cat-1")
    (root / "cat-1" / "mine.txt").write_text("the second one")
    page = client.post("/runs/cat-1/delete").text
    again = page.split('action="/trash/')[1].split("/restore")[0]
    name = client.post(f"/trash/{again}/restore").url.path.rpartition("/")[2]
    assert (root / name / "mine.txt").is_file()


def test_a_round_is_not_deleted_alone(client, root):
    shutil.copytree(root / "cat-1", root / "cat-1" / "round-1")
    assert "Delete that" in client.post("/runs/cat-1~round-1/delete").text
    assert (root / "cat-1" / "round-1").is_dir()
    assert "/delete" not in client.get("/runs/cat-1~round-1").text


def test_a_name_in_any_script_can_be_downloaded(client, root):
    (root / "cat-1" / "export").mkdir()
    (root / "cat-1" / "export" / "猫.txt").write_text("neko")
    answer = client.get("/runs/cat-1/files/export/猫.txt")
    assert (answer.status_code, answer.text) == (200, "neko")
    draft = client.post("/drafts/upload", files={"file": ("a.yaml", "target: кот\ncorefs: [кошка]\n")}).url.path
    assert client.get(f"{draft}/concepts.yaml").headers["content-disposition"].endswith(".yaml")


def test_a_damaged_draft_is_left_out_of_the_start_page(client, root, draft):
    path = root / ".crce-web" / "drafts" / draft.rpartition("/")[2] / "draft.json"
    path.write_text('{"name": 3}')
    page = client.get("/")
    assert (page.status_code, draft in page.text) == (200, False)
    assert "Cannot read" in client.get(f"{draft}?again").text


def test_a_set_of_hundreds_of_phrases_has_a_page(client):
    text = "target: cat\ncorefs:\n" + "".join(f"- cat number {i}\n" for i in range(250))
    draft = client.post("/drafts/upload", files={"file": ("a.yaml", text)}).url.path
    assert "cat number 249" in client.get(draft).text
    assert client.post(draft, data={"command": "reject 3"}).status_code == 200


def test_no_address_leads_out_of_what_is_shown(client):
    for path in (
        "/runs/..%2f..%2fetc",
        "/runs/.crce-web",
        "/runs/cat-1~..",
        "/runs/cat-1/files/run.json",
        "/runs/cat-1/files/export/../run.json",
        "/runs/cat-1/files/export%2f..%2frun.json",
        "/runs/cat-1/images/..%2frun.json",
        "/runs/cat-1/film/..%2frun.json",
        "/images/..%2f..%2fx.webp",
        "/drafts/..%2f..",
        "/static/..%2fapp.py",
        "/static/../app.py",
    ):
        assert client.get(path).status_code in (400, 404), path


def test_exports_and_pushes_are_jobs(client, queued):
    client.post("/runs/cat-1/export", data={"to": "kohya"})
    assert queued.jobs()[0].arguments[-3:] == ["--to", "kohya", "--force"]
    assert client.post("/runs/cat-1/export", data={"to": "pickle"}).status_code == 400
    busy = client.post("/runs/cat-1/work", data={"what": "refine"})
    assert "has not ended yet" in busy.text
    queued.ask(1, "cancel")
    client.post("/runs/cat-1/push", data={"repo": "me/cat"})
    assert queued.jobs()[0].arguments[-2:] == ["me/cat", "--dry-run"]
    assert client.post("/runs/cat-1/push", data={"repo": "--help"}).status_code == 400


def test_a_run_that_is_worked_on_is_not_deleted(client, queued):
    client.post("/runs/cat-1/work", data={"what": "evaluate"})
    assert "Cancel it first" in client.post("/runs/cat-1/delete").text


def test_free_prompts_are_bounded(client):
    for data in (
        {"prompt": "\n".join("abcdefghij")},
        {"prompt": "cat", "seed": "-1"},
        {"prompt": "cat", "strength": "9"},
        {"prompt": "cat", "strength": "nan"},
        {"prompt": " "},
    ):
        assert client.get("/runs/cat-1/drawn", params=data).status_code == 400


def test_prompts_are_drawn_before_and_after(drawing_client):
    given = {"prompt": "a cat", "seed": "3", "strength": "0"}
    deadline = time.monotonic() + 120
    while "being drawn" in (page := drawing_client.get("/runs/cat-1/drawn", params=given).text):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    before, after = (part.split('"')[0] for part in page.split('src="')[1:3])
    assert before != after
    # at strength 0 the erased model is the base model
    assert drawing_client.get(before).content == drawing_client.get(after).content


def test_keys_are_taken_and_never_sent_back(client, root, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    page = client.post("/settings", data={"openai_key": "sk-hidden", "model": "demo", "theme": "dark"}).text
    assert 'data-theme="dark"' in page
    assert "is set" in page
    assert "sk-hidden" not in page
    assert not any(b"sk-hidden" in path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_job_is_continued_from_where_its_run_is(root):
    runs = Runs(root, root / HOME)
    arguments = ["erase", "x.yaml", "--out", "x", "--judge", "emoji"]
    trained = WebJob(1, "Erase cat", arguments, "cat-1")
    assert continued(runs, trained)[0] == "evaluate"
    assert continued(runs, trained)[-2:] == ["--judge", "emoji"]
    info = (root / "cat-1" / "run.json").read_text()
    (root / "cat-1" / "run.json").write_text(info.replace('"finished"', '"running"', 1))
    assert continued(runs, trained)[:2] == ["erase", "--resume"]
    (root / "cat-1" / "run.json").unlink()
    assert continued(runs, trained) == arguments


def test_a_hostile_name_stays_in_the_folder(client, root, queued):
    outside = sorted(path.name for path in root.parent.iterdir() if path.name != "decisions.jsonl")
    for name in ("../../x", "..\\..\\x", "/etc/passwd", "‮gnp.x", "a" * 290, "CON", "."):
        file = {"file": (f"{name}.yaml", f'target: "{name}"\ncorefs: [thing]\n'.replace("\\", "\\\\").encode())}
        path = client.post("/drafts/upload", files=file).url.path
        if path != "/drafts/upload":  # it is a name that a concept may have
            client.post(f"{path}/start", data={"method": "uce"})
            assert root.resolve() in (root / queued.jobs()[0].run).resolve().parents
        assert sorted(path.name for path in root.parent.iterdir() if path.name != "decisions.jsonl") == outside


def test_a_name_that_cannot_be_one_is_refused(client):
    for name in ("x" * 10_000, "", "  ", "\x00"):
        answer = client.post("/drafts", data={"concept": name})
        assert answer.status_code == 400
        assert "That did not work" in answer.text


def test_pictures_of_explicit_targets_are_hidden_until_they_are_asked_for(client):
    file = {"file": ("x.yaml", b"target: nudity\nkind: explicit\ncorefs: [nude]\n")}
    page = client.post("/drafts/upload", files=file).text
    assert page.count("thumb explicit") == 2
