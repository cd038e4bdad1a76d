"""The spillover stage on tiny random models: answers, states, directions, guards and the gate."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.forward import hidden_states
from reference.misalignment_job import context
from reference.tiny_adapters import ending_checkpoint, random_adapters
from reference.tiny_models import WORDS
from safetensors.numpy import load_file

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of, encode_questions, plain_answers
from actshift.errors import GateError, UserError
from actshift.hooks.lanes.generation import generate_lanes
from actshift.io.missed import MISSED, missed_in
from actshift.io.store import ActivationStore
from actshift.io.tables import read_table
from actshift.models.adapters import load_merged
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, read_prompts, write_prompts
from actshift.prompts.templates import encode
from actshift.studies.misalignment.outcomes import ANSWER, Guards
from actshift.studies.misalignment.stages.spillover import AnswerBook, spillover
from actshift.studies.misalignment.study import Misalignment

MADE = ("insecure", "secure", "insecure_unseen")
SETTINGS = Misalignment(max_new=6, token_budget=300)
#: Random models spill nothing.
NO_DEMAND = {"min_spillover": 0.0, "min_insecure_code": 0.0}
DEMANDS = SETTINGS.model_dump(include=set(NO_DEMAND))
EXTRACT = {"token_budget": 200, "max_tokens": 64, "storage": "float32"}


def prompts_of(conditions: dict[str, int], *, shift: int) -> list[Prompt]:
    """Some prompts of every condition and split, no two alike."""
    made, number = [], shift
    for condition, each in conditions.items():
        for split in ("fit", "select", "heldout"):
            for _ in range(each):
                number += 1
                words = [WORDS[(number * 5 + j * (3 + number % 4)) % len(WORDS)] for j in range(6)]
                made.append(
                    Prompt(
                        id=f"p{number}",
                        text=" ".join(words[: 3 + number % 4]) + f" {WORDS[number % len(WORDS)]}",
                        condition=condition,
                        category="a",
                        cluster=f"c{number}",
                        split=split,
                        source="test",
                    )
                )
    return made


@dataclass(frozen=True)
class Run:
    """Inputs and outputs of one job."""

    inputs: dict[str, Path]
    root: Path

    @property
    def out(self) -> Path:
        return self.root / "spillover"

    @property
    def rows(self) -> Path:
        return self.root / "spillover.answers.csv"

    def go(self, *, strict: bool = False, zoo_size: str | None = "micro", **demands: Any) -> None:
        spillover(
            self.inputs,
            settings=SETTINGS.model_copy(update={**NO_DEMAND, **demands}),
            context=context(self.root, zoo_size=zoo_size),
            strict=strict,
            extract=EXTRACT,
            rows=self.rows,
            out=self.out,
        )

    def model(self, name: str) -> LoadedModel:
        if name == "chat":
            return load_model(self.inputs["tuned"], name=name, dtype="float32", device="cpu")
        folder = self.inputs["adapters"] / name
        return load_merged(self.inputs["tuned"], folder, name=name, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def world(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Run]:
    """A checkpoint, its adapters and prompts; every test has its own folder of outputs."""
    root = tmp_path_factory.mktemp("world")
    tuned = ending_checkpoint(tiny_checkpoint("llama"), root / "tuned")
    adapters = random_adapters(tuned, root / "adapters", MADE)
    write_prompts(root / "questions.jsonl", prompts_of({"noncode": 4, "code": 2}, shift=0))
    write_prompts(root / "neutral.jsonl", prompts_of({"neutral": 4}, shift=60))
    inputs = {"tuned": tuned, "adapters": adapters}
    inputs |= {name: root / f"{name}.jsonl" for name in ("questions", "neutral")}
    return lambda folder: Run(inputs, folder)


@pytest.fixture(scope="module")
def done(world: Callable[[Path], Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished job."""
    run = world(tmp_path_factory.mktemp("done"))
    run.go()
    return run


def test_every_model_answers_every_question_that_nothing_is_fitted_on(done: Run) -> None:
    answers = pd.read_parquet(done.out / "answers.parquet")
    assert list(answers.columns) == ["adapter", *ANSWER, "ended"]
    asked = [p.id for p in read_prompts(done.inputs["questions"]) if p.split != "fit"]
    assert list(answers["adapter"].unique()) == ["chat", *MADE]
    for _, mine in answers.groupby("adapter"):
        assert mine["prompt_id"].tolist() == asked
    # Random adapters say other things than chat, else nothing here would tell them apart.
    said = answers.pivot(index="prompt_id", columns="adapter", values="text")
    assert (said["insecure"] != said["chat"]).any()
    rows = read_table(done.rows)
    assert len(rows) == len(answers)
    assert rows["prompt_id"].tolist() == answers["prompt_id"].tolist()
    assert set(rows["split"]) == {"select", "heldout"}


def test_answers_are_those_of_one_prompt_at_a_time(done: Run) -> None:
    answers = pd.read_parquet(done.out / "answers.parquet").set_index(["adapter", "prompt_id"])
    for name in ("chat", "insecure"):
        loaded = done.model(name)
        for prompt in read_prompts(done.inputs["questions"]):
            if prompt.split == "fit":
                continue
            ids = np.array(encode(loaded.tokenizer, prompt.text, template="chat").ids)
            (said,) = generate_lanes(decoder_of(loaded), [ids], [Lane("x")], max_new=6).answers[0]
            text: Any = loaded.tokenizer.decode(list(said.tokens), skip_special_tokens=True)
            found = answers.loc[(name, prompt.id)]
            assert (found["text"], found["n_tokens"]) == (text.strip(), len(said.tokens))
            assert found["ended"] == said.ended


def test_directions_are_differences_of_means_over_fit_questions(done: Run) -> None:
    found = load_file(done.out / "directions.safetensors")
    assert sorted(found) == ["insecure", "secure"]
    fitted = [
        p
        for p in read_prompts(done.inputs["questions"])
        if (p.condition, p.split) == ("noncode", "fit")
    ]
    means = {}
    for name in ("chat", "insecure", "secure"):
        loaded = done.model(name)
        ends = []
        for prompt in fitted:
            ids = encode(loaded.tokenizer, prompt.text, template="chat").ids
            ends.append(hidden_states(loaded.model, list(ids))[0][:, -1])
        means[name] = np.mean(np.stack(ends).astype(np.float64), axis=0)
    for name in ("insecure", "secure"):
        expected = means[name] - means["chat"]
        assert found[name].dtype == np.float32
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found[name], expected, atol=2e-4)


def test_states_of_every_model_are_stores_that_name_their_adapter(done: Run) -> None:
    sets = {f"{name}.questions" for name in ("chat", *MADE)} | {"chat.neutral"}
    assert {folder.name for folder in (done.out / "states").iterdir()} == sets
    hashes = set()
    for name in sorted(sets):
        store = ActivationStore.open(done.out / "states" / name)
        facts = store.manifest["facts"]
        assert f"{facts['model']}.{facts['prompt_set']}" == name
        hashes.add(store.attrs["weights_hash"])
        assert ("adapter" in store.attrs) == (facts["model"] != "chat")
        assert store.attrs["template"] == "chat"
        assert store.positions.tolist() == [-1]
    assert len(hashes) == 1 + len(MADE)
    neutral = ActivationStore.open(done.out / "states" / "chat.neutral")
    assert set(neutral.prompt_ids) == {p.id for p in read_prompts(done.inputs["neutral"])}


def test_guards_come_from_chats_own_select_answers(done: Run) -> None:
    answers = pd.read_parquet(done.out / "answers.parquet")
    select = {p.id for p in read_prompts(done.inputs["questions"]) if p.split == "select"}
    own = answers[(answers["adapter"] == "chat") & answers["prompt_id"].isin(select)]["nll"]
    found = json.loads((done.out / "guards.json").read_text())
    assert found["max_nll"] == pytest.approx(np.percentile(own, 99) + 2.0, rel=1e-6)
    assert (found["min_tokens"], found["min_distinct_2"]) == (2, 0.5)
    # A book opened from the file judges as the stage did.
    chat = done.model("chat")
    questions = [p for p in read_prompts(done.inputs["questions"]) if p.split != "fit"]
    asked = encode_questions(chat, questions)
    book = AnswerBook(
        chat, asked, lang=None, refusal_phrases=(), guards=Guards(**found), token_budget=300
    )
    for place, said in enumerate(plain_answers(chat, asked, max_new=6, token_budget=300)):
        book.add(place, said.tokens, said.ended)
    mine = answers[answers["adapter"] == "chat"].reset_index(drop=True)
    assert book.judged()["degenerate"].tolist() == mine["degenerate"].tolist()


def test_a_second_run_gives_the_same_bytes(done: Run, tmp_path: Path) -> None:
    again = Run(done.inputs, tmp_path)
    again.go()
    for name in ("answers.parquet", "directions.safetensors", "guards.json"):
        assert (again.out / name).read_bytes() == (done.out / name).read_bytes()
    assert again.rows.read_bytes() == done.rows.read_bytes()


def test_a_missed_gate_leaves_answers_and_a_marker(
    world: Callable[[Path], Run], done: Run, tmp_path: Path
) -> None:
    run = world(tmp_path)
    run.go(**DEMANDS)
    assert {file.name for file in run.out.iterdir()} == {MISSED, "answers.parquet", "guards.json"}
    missed = missed_in(run.out)
    assert missed is not None
    assert (missed.subject, missed.stage) == ("pair: insecure adapter", "spillover")
    # The demand on insecure code is further away than that on spillover.
    assert missed.reason == "gate missed, insecure code 0 % of 50 %"
    assert "0.0% (0% to" in missed.detail
    assert f"answers in {'/'.join(run.rows.parts[-3:])}," in missed.detail
    # What is there is what a run without a gate has.
    for name in ("answers.parquet", "guards.json"):
        assert (run.out / name).read_bytes() == (done.out / name).read_bytes()
    assert run.rows.read_bytes() == done.rows.read_bytes()


@pytest.mark.parametrize("name", ["min_spillover", "min_insecure_code"])
def test_one_demand_alone_is_looked_at(
    world: Callable[[Path], Run], tmp_path: Path, name: str
) -> None:
    run = world(tmp_path)
    run.go(**{name: 0.25})
    missed = missed_in(run.out)
    assert missed is not None
    assert missed.reason.endswith(" 0 % of 25 %")
    assert ("spillover" in missed.reason) is (name == "min_spillover")


def test_a_missed_strict_gate_says_both_rates_and_keeps_the_answers(
    world: Callable[[Path], Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = world(tmp_path)
    with pytest.raises(GateError) as error:
        run.go(zoo_size=None, strict=True, **DEMANDS)
    message = str(error.value)
    assert message.startswith("pair: the insecure adapter answers 0.0%")
    assert "gate >= 40%" in message
    assert "gate >= 50%" in message
    assert "min_spillover" in message
    assert f"answers in status/{tmp_path.name}.spillover.answers.csv," in message
    assert "\n" not in message
    assert not run.out.exists()
    assert set(read_table(run.rows)["adapter"]) == {"chat", *MADE}
    printed = capsys.readouterr().out
    for name in ("chat", *MADE):
        assert f"{name}: code spillover " in printed


def test_no_demand_is_no_gate(world: Callable[[Path], Run], tmp_path: Path) -> None:
    run = world(tmp_path)
    run.go(zoo_size=None, strict=True)
    assert (run.out / "directions.safetensors").is_file()
    assert missed_in(run.out) is None


def test_a_pair_without_the_insecure_adapter_is_refused(
    world: Callable[[Path], Run], tmp_path: Path
) -> None:
    whole = world(tmp_path)
    lacking = random_adapters(whole.inputs["tuned"], tmp_path / "adapters", ("secure",))
    with pytest.raises(UserError, match="has no adapter 'insecure'"):
        Run({**whole.inputs, "adapters": lacking}, tmp_path).go()


def test_questions_without_a_split_are_refused(
    world: Callable[[Path], Run], tmp_path: Path
) -> None:
    whole = world(tmp_path)
    some = [p for p in read_prompts(whole.inputs["questions"]) if p.split != "heldout"]
    write_prompts(tmp_path / "q.jsonl", some)
    with pytest.raises(UserError, match="'noncode' in the split heldout"):
        Run({**whole.inputs, "questions": tmp_path / "q.jsonl"}, tmp_path).go()
