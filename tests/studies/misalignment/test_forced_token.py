"""Answers of an adapter behind the first token that the untuned model would have said."""

import numpy as np
import torch
from reference.steered_pair import SETTINGS, Tables, make_inputs
from reference.tiny_adapters import ending_checkpoint, random_adapters
from studies.misalignment.test_steering import pair_of, run


def test_the_forced_token_is_chats_and_what_follows_is_the_adapters(tiny_checkpoint, tmp_path):
    tuned = ending_checkpoint(tiny_checkpoint("llama"), tmp_path / "tuned")
    adapters = random_adapters(tuned, tmp_path / "adapters", ["insecure"])
    inputs = make_inputs(tuned, tmp_path, adapters)
    tables, pair = Tables(run(inputs, tmp_path)), pair_of(inputs)
    chat, insecure = pair.untuned, pair.load("insecure")
    ends = chat.model.generation_config.eos_token_id
    lane = int(tables.of(protocol="forced_token").index.item())
    rows = tables.rows(lane)
    assert rows["prompt"].tolist() == pair.questions.of["both"]
    assert rows["kl_first"].isna().all()
    assert np.isnan(tables.lanes.loc[lane, ["cosine", "kl_select"]].to_numpy(float)).all()
    plain = int(tables.of(protocol="last_token", control="plain", receiver="insecure").index.item())
    others = tables.rows(plain)["first_token"].to_numpy() != rows["first_token"].to_numpy()
    assert others.any()
    empty = []
    for place, row in zip(rows["prompt"], rows.itertuples(), strict=True):
        ids = torch.tensor(pair.asked[place].ids)[None]
        with torch.inference_mode():
            first = int(chat.model(ids).logits[0, -1].argmax())
            said = [first]
            while len(said) < SETTINGS.max_new and said[-1] not in ends:
                so_far = torch.cat([ids, torch.tensor([said])], dim=1)
                said.append(int(insecure.model(so_far).logits[0, -1].argmax()))
        told = [one for one in said if one not in ends]
        text = chat.tokenizer.decode(told, skip_special_tokens=True)
        # An answer that ends at once has no first token.
        assert (row.first_token, row.text) == (first if told else -1, text.strip())
        empty.append(not told)
    assert not all(empty)
