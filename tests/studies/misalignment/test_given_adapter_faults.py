"""Adapters that exist and cannot be used: what is told of each."""

from pathlib import Path

import pytest
import torch
from reference.peft_adapters import peft_adapter
from reference.tiny_adapters import ending_checkpoint
from safetensors.torch import load_file, save_file
from studies.misalignment.test_given_adapters import TEMPLATE, edit, run

from actshift.errors import UserError
from actshift.models.adapters import CONFIG, WEIGHTS

#: peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    plain = tiny_checkpoint("llama", seed=0, template=TEMPLATE)
    return ending_checkpoint(plain, tmp_path_factory.mktemp("own") / "llama")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
#: Tensors that other methods of peft, or other ways to save, leave beside A and B.
MORE = {
    "magnitude": "{place}.lora_magnitude_vector",
    "bias": "{place}.lora_B.bias",
    "norm": "base_model.model.model.norm.weight",
}


def spoil(folder: Path, how: str) -> None:
    """Break an adapter folder in one way."""
    if how == "pickled":
        (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    elif how == "no json":
        (folder / CONFIG).write_text("{")
    elif how == "cut":
        whole = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    elif how == "pointer":
        (folder / WEIGHTS).write_text(POINTER)
    elif how == "no rank":
        edit(folder, r=None)
    elif how == "ia3":
        edit(folder, peft_type="IA3")
    elif how == "empty":
        save_file({}, folder / WEIGHTS)
    elif how == "named":
        tensors = load_file(folder / WEIGHTS)
        save_file({k.replace(".weight", ".default.weight"): v for k, v in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip
    elif how in MORE:
        tensors = load_file(folder / WEIGHTS)
        place = "base_model.model.model.layers.0.self_attn.q_proj"
        name = MORE[how].format(place=place)
        save_file(tensors | {name: torch.ones(3)}, folder / WEIGHTS)
    elif how == "half":
        tensors = load_file(folder / WEIGHTS)
        save_file({key: one for key, one in tensors.items() if "lora_A" in key}, folder / WEIGHTS)
    elif how == "uneven":
        tensors = load_file(folder / WEIGHTS)
        save_file({k: v[:, :2].contiguous() if "lora_B" in k else v for k, v in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip
    elif how == "wider":
        tensors = load_file(folder / WEIGHTS)
        save_file({k: v.repeat(1, 2) if "lora_A" in k else v for k, v in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip
    elif how == "elsewhere":
        tensors = load_file(folder / WEIGHTS)
        save_file({key.replace("layers.1", "layers.7"): v for key, v in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip
    else:
        edit(folder, **{how: True})


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("pickled", r"adapter_model\.safetensors is missing: .* a pickle, which is never loaded"),
        ("no json", r"theirs/adapter_config\.json is not valid JSON"),
        ("cut", r"theirs/adapter_model\.safetensors is cut off: it has "),
        ("pointer", r"theirs/adapter_model\.safetensors is a Git LFS pointer, .*git lfs pull"),
        ("half", r"lora_B\.weight is missing, so A and B are not in pairs\): expected plain LoRA"),
        ("named", r"names its adapter 'default': save it with peft's save_pretrained\)"),
        ("magnitude", r"lora_magnitude_vector is of DoRA, only plain LoRA is supported\)"),
        ("bias", r"lora_B\.bias is a bias beside LoRA, only plain LoRA is supported\)"),
        ("norm", r"it holds .*norm\.weight, which is neither A nor B of LoRA\)"),
        ("empty", r"its file holds no matrices\)"),
        ("no rank", r"adapter_config\.json has r None, expected a number above 0\)"),
        ("ia3", r"adapter_config\.json says peft_type IA3\)"),
        ("uneven", r"\(base_model.*: B is \[.*\] and A \[.*\]\): expected plain LoRA"),
        ("wider", r"\(model.*: \[.*\] for \[.*\]\): expected plain LoRA"),
        ("elsewhere", r"\(there is no linear map model\.layers\.7\..*\)"),
        ("use_dora", r"\(use_dora is not supported, only plain LoRA\)"),
        ("modules_to_save", r"\(modules_to_save is not supported, only plain LoRA\)"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(checkpoint, tmp_path, how, line):
    peft_adapter(checkpoint, tmp_path / "theirs")
    spoil(tmp_path / "theirs", how)
    with pytest.raises(UserError, match=r"^pairs\.own\.adapters\.insecure: " + ".*" + line) as told:
        run(checkpoint, tmp_path / "own", given={"insecure": tmp_path / "theirs"})
    assert "\n" not in str(told.value)
    assert not (tmp_path / "own" / "adapters").exists()
