"""Models on disk: made ready, loaded, saved in Hugging Face layout."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import data
from align.files.cached import downloaded, made, stamp
from align.files.disk import writing
from align.files.folder import identity, is_done, made_by
from align.files.locate import Located
from align.files.trusted import ModelError, check_code, unpickle
from align.layers import with_layers
from align.modeling import attention as shared_prefix
from align.modeling import flex
from align.modeling.lora import merged_weights
from align.terminal.quiet import quiet


def ready(located: Located, *, weights: bool = True) -> str:
    """The folder that `from_pretrained` and vLLM load; downloads, converts GGUF, draws weights,
    drops layers. Raises ModelError where that cannot be done. weights: without, only what tells
    about a model on the hub is downloaded.

    Before the process group is there: in one, transformers writes on its first rank alone, and a
    node whose cache is its own would be left with nothing. One process of a node does the work.
    """
    if located.layers:
        return _of_layers(ready(replace(located, layers=0)), located.layers)
    if located.kind == "folder":
        _check_written(Path(located.path))
        return located.path
    if located.kind == "hub":
        return downloaded(located.path, weights=weights)
    source = Path(located.path)
    if located.kind == "pickled":
        if not source.is_dir():
            source = Path(downloaded(located.path, pickled=True))
        return made(source.name, f"pickled:{identity(str(source))}", partial(unpickle, source))
    key = stamp(source if source.is_file() else source / "config.json")
    make = _convert_gguf if located.kind == "gguf" else _draw
    return made(source.stem, key, lambda folder: make(source, folder))


def _check_written(folder: Path) -> None:
    """Raises ModelError where a stage wrote the folder and its weights are others now. One process
    reads them all for this, 2 GB a second; from then on they are in the system's cache.
    """
    stage = folder.parent
    if folder.name != "model" or not is_done(stage) or os.environ.get("RANK", "0") != "0":
        return
    if (found := weights_hash(folder)) != (wrote := made_by(stage, "weights")):
        raise ModelError(
            f"the weights in {folder} were altered since their stage wrote them: their sha256 is "
            f"{found[:12]}… instead of {wrote[:12]}… (in {stage}/done.json); delete {stage} and "
            "run that stage again, or, if they are meant to be others, give a copy of the folder "
            "with --model"
        )


def _of_layers(path: str, keep: int) -> str:
    """The model in `path` with `keep` of its decoder layers, as a model of its own."""

    def shorten(folder: Path) -> None:
        try:
            student = with_layers(load_causal_lm(path, device="cpu"), keep)
        except ValueError as error:
            raise ModelError(f"no student of {keep} layers of {path}: {error}") from error
        save(student, load_tokenizer(path), folder)

    # The weights, not the place: a stage that was trained again gives another student.
    return made(f"{keep}-layers", f"{keep}:{identity(path)}", shorten)


def _convert_gguf(file: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # The weights are plain float32 now, but the loader still calls the model quantized.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _draw(source: Path, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            load_config(str(source)), dtype=torch.float32, trust_remote_code=False
        )
    model.save_pretrained(folder)
    load_tokenizer(str(source)).save_pretrained(folder)


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Raises ModelError where there is none, or one without an end token."""
    check_code(path, trust_remote_code=trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # which is what the tokenizers library raises for a broken file
        raise ModelError(f"the tokenizer of {path} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {path} has no end token, so nothing would stop a completion: set "
            "eos_token in its tokenizer_config.json"
        )
    return tokenizer


def stop_tokens(tokenizer: PreTrainedTokenizerBase, path: str) -> list[int]:
    """Ids that end a completion: the chat template's, the tokenizer's, and those that the model's
    own generation settings add (Qwen's instruct models stop at two).
    """
    found = data.chat.stop_ids(tokenizer)
    return found + [token for token in end_tokens(path) if token not in found]


def end_tokens(path: str) -> list[int]:
    """Those of generation_config.json, none where there is none. Raises ModelError for a broken
    one.
    """
    file = Path(path) / "generation_config.json"
    if not file.is_file():
        return []
    try:
        found = GenerationConfig.from_pretrained(path).eos_token_id
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read ({error}): mend or delete it") from error
    found = found if isinstance(found, list) else [] if found is None else [found]
    if strange := [token for token in found if type(token) is not int]:
        raise ModelError(f"eos_token_id in {file} is {strange[0]!r}: write the token's id there")
    return found


def load_causal_lm(
    path: str, *, device: torch.device | str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Float32 weights (autocast computes in bf16); attention that takes packs: FlexAttention on
    CUDA, `align.modeling.attention` elsewhere. Raises ModelError for weights that cannot be read.
    """
    config = load_config(path, trust_remote_code=trust_remote_code)
    if _classifies(config):
        raise ModelError(
            f"{path} is a classifier ({', '.join(config.architectures)}), such as a reward model: "
            "it writes no text and cannot be a policy. Give a causal language model"
        )
    return _load(AutoModelForCausalLM, path, device, trust_remote_code)


def _classifies(config: PretrainedConfig) -> bool:
    kinds = config.architectures or []
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)


def check_classifier(path: str, *, trust_remote_code: bool = False) -> None:
    """Raises ModelError unless it is a reward model: a sequence classifier with one label."""
    if not Path(path).is_dir() and path.count("/") != 1:
        raise ModelError(f"there is no reward model in {path}: no such folder")
    config = load_config(path, trust_remote_code=trust_remote_code)
    if not _classifies(config):
        kinds = config.architectures or []
        raise ModelError(
            f"{path} is no reward model but a {' or '.join(kinds) or 'model without a name'}: "
            "give what a reward_model stage wrote, or another sequence classifier with one label"
        )
    if config.num_labels != 1:
        raise ModelError(
            f"{path} has {config.num_labels} labels; a reward model has one, its score"
        )


def load_classifier(
    path: str, *, device: torch.device | str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A reward model. Raises ModelError for any other."""
    check_classifier(path, trust_remote_code=trust_remote_code)
    model = _load(AutoModelForSequenceClassification, path, device, trust_remote_code)
    _check_head(model)
    return model


def new_classifier(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device | str,
    seed: int,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A reward model to be trained: this model's trunk, and a head drawn from N(0, 1/(H + 1))
    (1909.08593), or the head it has already. Raises ModelError where there is no such class.
    """
    if _classifies(load_config(path, trust_remote_code=trust_remote_code)):
        return load_classifier(path, device=device, trust_remote_code=trust_remote_code)
    model = _load(AutoModelForSequenceClassification, path, device, trust_remote_code, num_labels=1)
    _check_head(model)
    draw = torch.Generator().manual_seed(seed)
    width = model.score.in_features
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, width, generator=draw) / (width + 1) ** 0.5)
    pad = tokenizer.pad_token_id
    # transformers reads the score at the last token that is not this one.
    model.config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    return model


def _check_head(model: PreTrainedModel) -> None:
    """Raises ModelError for a classifier that reads its score in another way than we do."""
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise ModelError(
            f"{type(model).__name__} has no linear head called score, which is read and trained "
            "here: give a reward model made from a causal language model"
        )


def load_config(path: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Raises ModelError where there is none."""
    check_code(path, trust_remote_code=trust_remote_code)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f"the model in {path} cannot be loaded: {error}") from error


def _load(
    family: Any, path: str, device: torch.device | str, trust_remote_code: bool, **more: Any
) -> PreTrainedModel:
    on_cuda = torch.device(device).type == "cuda"
    ours, needs = (flex.NAME, "flex_attn") if on_cuda else (shared_prefix.NAME, "sdpa")
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    } | more
    config = load_config(path, trust_remote_code=trust_remote_code)
    try:
        kind = family._model_mapping.get(type(config), None)
        # Ours is their equal, and no more: a model with attention sinks, say, must keep its own.
        if getattr(kind, f"_supports_{needs}", False):
            options["attn_implementation"] = ours
        with quiet("transformers"):  # what is new is drawn below, on purpose
            model = family.from_pretrained(path, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"the model in {path} cannot be loaded: {error}") from error
    return model.to(device)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Float32 weights, configuration, tokenizer: `transformers` and vLLM load it unaided."""
    state = _exportable(model)
    with writing(folder.parent, needed=sum(tensor.nbytes for tensor in state.values())):
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)


def _exportable(model: PreTrainedModel) -> dict[str, Tensor]:
    """Merged weights plus buffers that are saved with the model; a tied weight once."""
    state = {name: tensor.cpu() for name, tensor in merged_weights(model)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state |= {k: v for k, v in model.state_dict().items() if k not in parameters}
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    if model.config.get_text_config().tie_word_embeddings:
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    return state


def weights_hash(folder: Path) -> str:
    """sha256 over the weight files of a saved model, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
