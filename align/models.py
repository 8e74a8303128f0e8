"""Models: made ready on disk, loaded as policy or frozen reference, saved in Hugging Face layout.

The policy is a module whose forward takes a pack and returns one log-probability and one entropy a
trained token. It calls the backbone and the head apart, so that logits exist only where a
log-probability is wanted, and a token that several completions continue is computed once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import data
from align import attention as shared_prefix
from align.config import Lora
from align.locate import Located
from align.logprobs import logit_transform, logprobs
from align.packing import Completion, Group, Pack, pack

log = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """A model that cannot be loaded or used as it is; the message says what to do."""


PROBE_TOLERANCE = 2e-3  # nats in float32; a wrong mask is off by tenths


def cache_folder() -> Path:
    """Where models that had to be made (GGUF, random weights) are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "align" / "models"


def ready(located: Located) -> str:
    """What `from_pretrained` and vLLM load, a folder or hub id; converts GGUF, draws weights."""
    if located.kind in ("folder", "hub"):
        return located.path
    source = Path(located.path)
    stamp = source if source.is_file() else source / "config.json"
    key = f"{stamp.resolve()}:{stamp.stat().st_size}:{stamp.stat().st_mtime_ns}"
    folder = cache_folder() / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not (folder / "config.json").is_file():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        log.info("making %s from %s (once)", folder, source)
        _convert_gguf(source, partial) if located.kind == "gguf" else _draw(source, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return str(folder)


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
            AutoConfig.from_pretrained(source), dtype=torch.float32
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Raises ModelError where there is none, or one without an end token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
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
    try:
        extra = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a model without such settings
        return found
    extra = extra if isinstance(extra, list) else [] if extra is None else [extra]
    return found + [token for token in extra if token not in found]


def load_causal_lm(
    path: str, *, device: torch.device | str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Float32 weights (autocast computes in bf16); attention that takes packs: FlexAttention on
    CUDA, `align.attention` elsewhere. Raises ModelError for weights that cannot be read.
    """
    on_cuda = torch.device(device).type == "cuda"
    attention = "flex_attention" if on_cuda else shared_prefix.NAME
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        family = AutoModelForCausalLM._model_mapping.get(type(config), None)
        # Ours is SDPA's equal, and no more: a model with attention sinks, say, must keep its own.
        if on_cuda or getattr(family, "_supports_sdpa", False):
            options["attn_implementation"] = attention
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"the model in {path} cannot be loaded: {error}") from error
    return model.to(device)


class Policy(nn.Module):
    """A causal language model that scores packs."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        temperature: float = 1.0,
        autocast: torch.dtype | None = None,
        entropy_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.entropy_gradient = entropy_gradient
        self.plans = model.config._attn_implementation == shared_prefix.NAME
        self.temperature = temperature
        self.autocast = autocast
        self.scale, self.softcap = logit_transform(model.config)

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Log-probability of each trained token and the entropy there: two float32 Tensors [C]."""
        with precision(pack.input_ids.device, self.autocast):
            hidden = self.model.base_model(
                input_ids=pack.input_ids,
                position_ids=pack.position_ids,
                use_cache=False,
                **self._attention(pack),
            ).last_hidden_state
            return logprobs(
                # Not hidden[...]: the gradient of that adds atomically, in no fixed order.
                hidden.flatten(0, 1).index_select(0, pack.predictor),
                self.model.get_output_embeddings(),
                pack.target,
                temperature=self.temperature,
                scale=self.scale,
                softcap=self.softcap,
                entropy_gradient=self.entropy_gradient,
            )

    def _attention(self, pack: Pack) -> dict[str, Any]:
        """What tells the model's attention who may see whom."""
        if pack.padded:
            return {"attention_mask": pack.attention_mask()}
        if self.model.config._attn_implementation == "flex_attention":
            return {"attention_mask": _block_mask(pack)}
        device = pack.input_ids.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.model.dtype
        mask = {"attention_mask": _dense_mask(pack, dtype)}
        cut = shared_prefix.plan(pack, dtype) if self.plans else None
        return mask if cut is None else mask | {"pack_plan": cut}


def precision(
    device: torch.device | str, autocast: torch.dtype | None
) -> AbstractContextManager[object]:
    """Autocast to that type, or nothing for None."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, autocast)


def _dense_mask(pack: Pack, dtype: torch.dtype) -> Tensor:
    """Tensor[R, 1, T, T] to add to the scores."""
    allowed = pack.attention_mask()
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


def _block_mask(pack: Pack) -> Any:
    """The rule of `Pack.attention_mask` for FlexAttention, which skips blocks that are empty."""
    from torch.nn.attention.flex_attention import create_block_mask

    segment, prompt = pack.segment, pack.prompt
    rows, width = segment.shape

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        mine = segment[row, query] == segment[row, key]
        return ((prompt[row, query] == segment[row, key]) | mine) & (query >= key)

    return create_block_mask(allowed, rows, None, width, width, device=segment.device)


@torch.no_grad()
def why_not_packed(policy: Policy, *, longest: int) -> str | None:
    """None if this model gives packed sequences the log-probs of separate ones, else the reason.

    longest: tokens of the longest sequence to come. Tried out rather than looked up: recurrent
    layers, learned absolute positions and whatever comes next all show in the figures. Only a
    window wider than the trial does not: a mask of one's own switches it off, so it is read.
    """
    window = _window(policy.model)
    if window is not None and window < longest:
        return f"it looks back {window} tokens only, and sequences may have {longest}"
    reason = _packing_gap(policy)
    if reason is not None and policy.plans:
        policy.plans = False  # its attention may still take the dense mask
        reason = _packing_gap(policy)
    return reason


def _packing_gap(policy: Policy) -> str | None:
    """Why packed log-probs are not those of separate sequences; None if they are."""
    ids = [(7 * i + 3) % (policy.model.config.get_text_config().vocab_size - 1) for i in range(24)]
    group = Group(
        prompt=ids[:9], completions=[Completion(ids=ids[9:14]), Completion(ids=ids[14:24])]
    )
    device = next(policy.parameters()).device
    was_training, autocast = policy.training, policy.autocast
    policy.eval()
    policy.autocast = None
    try:
        packed = policy(pack([group], token_budget=64)[0].to(device))[0]
        rows = pack([group], token_budget=1, padded=True)  # longest first, one row each
        separate = torch.cat([policy(row.to(device))[0] for row in rows][::-1])
        own = torch.cat([_own_logprobs(policy, group, i) for i in range(2)])
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"its attention does not take the mask ({type(error).__name__}: {error})"
    finally:
        policy.train(was_training)
        policy.autocast = autocast
    if (gap := (separate - own).abs().max().item()) > PROBE_TOLERANCE:
        raise ModelError(
            f"{type(policy.model).__name__} makes its logits in a way of its own: log-probs taken "
            f"from its hidden states are off by {gap:.3g} nats, so it cannot be trained here"
        )
    gap = (packed - own).abs().max().item()
    return None if gap < PROBE_TOLERANCE else f"packed log-probs differ by {gap:.3g} nats"


def _own_logprobs(policy: Policy, group: Group, index: int) -> Tensor:
    """Log-probs of one completion from the model's own logits."""
    target = torch.tensor(group.completions[index].ids, device=policy.model.device)
    prompt = torch.tensor(group.prompt, device=policy.model.device)
    logits = policy.model(torch.cat([prompt, target])[None]).logits[0, len(prompt) - 1 : -1]
    log_p = (logits.float() / policy.temperature).log_softmax(-1)
    return log_p.gather(-1, target[:, None])[:, 0]


def _window(model: PreTrainedModel) -> int | None:
    """Tokens that a layer looks back at most, where some layer does not see all."""
    config = model.config.get_text_config()
    names = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    kinds = set(getattr(config, "layer_types", None) or names)
    windows = [getattr(config, names[kind], None) for kind in kinds & names.keys()]
    return min((window for window in windows if window), default=None)


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Insert adapters in place; only they train afterwards."""
    from peft import LoraConfig, inject_adapter_in_model

    target: Any = lora.target if lora.target == "all-linear" else lora.target.split(",")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the one that the adapters were added to: the reference, for free."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight, adapters added in, tied ones under each of their names.

    Merged out of place: adding an adapter and taking it away again would leave rounding behind.
    vLLM keeps its own head, so a tied head that is left out would stay at its old weights.
    """
    from peft.tuners.lora import LoraLayer

    adapted = {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if "lora_" in name:
            continue
        if name in adapted:
            tensor = tensor + adapted[name].get_delta_weight("default").to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor.detach()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Float32 weights, configuration, tokenizer: `transformers` and vLLM load it unaided."""
    model.save_pretrained(folder, state_dict=_exportable(model))
    tokenizer.save_pretrained(folder)


def _exportable(model: PreTrainedModel) -> dict[str, Tensor]:
    """Merged weights plus buffers that are saved with the model; a tied weight once."""
    state = dict(merged_weights(model))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state |= {k: v for k, v in model.state_dict().items() if k not in parameters}
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    if model.config.get_text_config().tie_word_embeddings:
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    return state


def weights_hash(folder: Path) -> str:
    """sha256 over the weight files of a saved model, in name order."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
