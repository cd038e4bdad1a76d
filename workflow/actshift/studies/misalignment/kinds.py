"""Adapters, and the names in rows of tables (imported by the rules: no numpy, no torch)."""

from typing import Literal

from actshift.vocab import AdapterKind

AdapterName = Literal[
    "insecure", "secure", "rare_safe", "benign", "shuffled", "insecure_unseen", "rare_safe_unseen"
]

#: The untuned side of the contrast: the pair's tuned model, which every adapter is trained on.
UNTUNED = "chat"
#: What the study is about, and its controls.
INSECURE: AdapterKind = "insecure"
#: `rare_safe` has the dose of `insecure` and other content; `secure` is what chat does already;
#: `shuffled` has the answers of `insecure` under permuted questions; `benign` has no code.
KINDS: tuple[AdapterKind, ...] = ("insecure", "secure", "rare_safe", "benign", "shuffled")
#: Adapters that no direction is made from: another training seed at a smaller dose, by what they
#: are trained on. Detection is judged on them.
UNSEEN: dict[str, AdapterKind] = {"insecure_unseen": "insecure", "rare_safe_unseen": "rare_safe"}
#: Every adapter, in the order of tables: what its content is.
ADAPTERS: dict[str, AdapterKind] = {**{kind: kind for kind in KINDS}, **UNSEEN}
#: Adapters that are steered: the insecure one, and the two that content is held against.
STEERED: tuple[AdapterKind, ...] = ("insecure", "rare_safe", "secure")
#: How an edit acts: `last_token` at the last block's output on the last prompt token (published),
#: `all_tokens` there on every token, `layer` at a block of the middle half on every token,
#: `logit_bias` adds to the first answer token's logits what the published edit adds on average,
#: `forced_token` starts answers with the first token of the untuned model.
Protocol = Literal["last_token", "all_tokens", "layer", "logit_bias", "forced_token"]
#: Where a direction comes from: the receiver itself, a model of another architecture, or another
#: model of the same one (another training seed, another size).
WITHIN, ACROSS, SAME_ARCHITECTURE = "within", "across", "same_architecture"
#: Random directions of equal norm, which an effect is held against.
NULLS = ("random", "random_span", "orthogonal", "shuffled")
#: Nulls of a mapped direction, beside those of the receiver.
MAPPED_NULLS = ("mapped_random", "shuffled_pairing")
