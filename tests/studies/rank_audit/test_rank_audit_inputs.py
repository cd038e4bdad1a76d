"""Which prompts and streams the audit reads, and what it refuses."""

import dataclasses

import pytest
from reference.synthetic_pair import Stream, SyntheticPair, make_prompts

from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.studies.rank_audit.layer import Selection, required_streams, select
from actshift.studies.rank_audit.stage import audit_pair
from actshift.studies.rank_audit.study import RankAudit

QUICK = RankAudit(bootstrap_draws=3, half_sample_draws=3, n_sweep_draws=2, null_draws=3)
SETS = {name: name for name in ("harmful", "harmless")}


def selected(prompts: dict[str, list[Prompt]], **sets: str) -> Selection:
    return select(prompts, SETS | sets, concepts="concepts")


def audit(pair: SyntheticPair, prompts: dict[str, list[Prompt]]) -> None:
    audit_pair(pair, prompts, QUICK, pair="p", sets=SETS, seed=0)


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[Prompt]]:
    return make_prompts()


def test_select_prompts_are_never_read(prompts: dict[str, list[Prompt]]) -> None:
    pair = SyntheticPair(prompts)
    audit(pair, prompts)
    chosen = {row.id for rows in prompts.values() for row in rows if row.split == "select"}
    assert chosen
    for stream in pair.streams.values():
        assert not chosen & set(stream.asked)


def test_selection_keeps_the_splits_apart(prompts: dict[str, list[Prompt]]) -> None:
    found = selected(prompts)
    heldout = {i for rows in found.heldout.values() for i in rows.ids}
    fitted = {i for rows in found.fit.values() for i in rows.ids}
    concepts = {i for c in found.concepts for i in (*c.first, *c.second)}
    assert heldout == {
        row.id
        for name in ("harmful", "harmless")
        for row in prompts[name]
        if row.split == "heldout"
    }
    assert not heldout & (fitted | concepts)


def test_required_streams_are_all_that_is_opened(prompts: dict[str, list[Prompt]]) -> None:
    assert required_streams(selected(prompts), control="question_statement") == [
        (name, template)
        for name in ("concepts", "harmful", "harmless")
        for template in ("chat", "raw")
    ]


def test_a_set_of_its_own_condition_name_is_taken_whole(prompts: dict[str, list[Prompt]]) -> None:
    renamed = [dataclasses.replace(row, condition="advbench") for row in prompts["harmful"]]
    found = selected({**prompts, "advbench": renamed}, harmful="advbench")
    assert found.fit["harmful"].prompt_set == "advbench"


def test_streams_that_do_not_line_up_are_refused(prompts: dict[str, list[Prompt]]) -> None:
    def broken(change: object) -> SyntheticPair:
        pair = SyntheticPair(prompts)
        old = pair.streams["base", "harmful", "chat"]
        pair.streams["base", "harmful", "chat"] = change(old)  # type: ignore[operator]
        return pair

    cases = {
        "depth": lambda s: Stream(s.values[:1], s.prompt_ids),
        "other prompts": lambda s: Stream(s.values, s.prompt_ids[::-1]),
        "width": lambda s: Stream(s.values[..., :-1], s.prompt_ids),
    }
    for message, change in cases.items():
        with pytest.raises(UserError, match=message):
            audit(broken(change), prompts)


def test_prompts_that_cannot_be_audited_are_refused(prompts: dict[str, list[Prompt]]) -> None:
    leak = [
        dataclasses.replace(row, cluster="same") if row.split != "select" else row
        for row in prompts["harmful"]
    ]
    one_sided = [row for row in prompts["concepts"] if row.id != "question-003"]
    cases = {
        "no prompt set 'harmful'": {k: v for k, v in prompts.items() if k != "harmful"},
        "at least 2": {**prompts, "harmful": prompts["harmful"][:1]},
        "both fitted and held out": {**prompts, "harmful": leak},
        "must have one": {**prompts, "concepts": one_sided},
    }
    for message, bad in cases.items():
        with pytest.raises(UserError, match=message):
            selected(bad)
