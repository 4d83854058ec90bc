"""Pretrained models: found, checked, given a head; frozen, low-rank or whole.

Only safetensors are read, no code that comes with a model is run, and nothing is fetched unless
`model.download` asks for it.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from renshu.errors import ConfigError
from renshu.messages import say
from renshu_tasks.text import demo
from renshu_tasks.text.options import ModelOptions, TrainingOptions

AUTO = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "causal": "AutoModelForCausalLM",
    "embedding": "AutoModel",
}
"""The class of transformers for each head."""

_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout"),
    *("attention_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "summary_first_dropout"),
)
_LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")
_LONGEST = 512
_SMALL = 50_000_000


def location(options: ModelOptions) -> str:
    """The folder, or the hub's name, of the model that is asked for; a folder is checked."""
    name = str(demo.model_folder()) if options.name is None else options.name
    if Path(name).is_dir():
        _check_folder(Path(name))
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError("there is no such folder", where=f"model.name {name}")
    return name


def _check_folder(folder: Path) -> None:
    """Refuse a folder without configuration or weights, with pickles only, or with code."""
    where, file = f"model.name {folder}", folder / "config.json"
    if (folder / "adapter_config.json").is_file() and not file.is_file():
        raise ConfigError(
            "the folder holds an adapter without its model",
            where=where,
            allowed="a whole model",
            mend="peft: load it, merge_and_unload(), save_pretrained(FOLDER)",
        )
    if not file.is_file():
        raise ConfigError("the folder holds no model", where=where, allowed="a config.json")
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"config.json is not JSON: {error}", where=where) from error
    if "auto_map" in config:
        raise ConfigError(
            "the model asks for code of its own to be run",
            where=f"{file}: " + ", ".join(f"{n} {code}" for n, code in config["auto_map"].items()),
            allowed="models whose code is part of transformers",
        )
    if (folder / "model.safetensors").is_file() or list(folder.glob("*.safetensors.index.json")):
        return
    pickles = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickles:
        raise ConfigError(
            "the weights are pickled, and unpickling runs whatever code is in them",
            where=f"{folder}: {', '.join(sorted(pickles))}",
            allowed="model.safetensors",
            mend="if you trust the file, load it with torch once and save_pretrained() it again",
        )
    raise ConfigError("the folder has no weights", where=where, allowed="model.safetensors")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the reports and progress bars of transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _library(options: ModelOptions, name: str) -> Iterator[None]:
    """Errors of transformers in our words; its own reports and bars are left out."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        local = Path(name).is_dir()
        raise ConfigError(
            f"the model cannot be loaded: {text}",
            where=f"model.name {name}",
            allowed="a folder with model.safetensors, or a model in the local cache"
            + (", or of the hub" if options.download else ""),
            mend=None
            if local
            else "--model.download true where there is a network; offline: a folder that"
            " save_pretrained() wrote",
        ) from error


def _where(options: ModelOptions) -> dict[str, Any]:
    return {"local_files_only": not options.download, "trust_remote_code": False}


def load_config(options: ModelOptions) -> Any:
    """The model's configuration. Raises ConfigError where it cannot be had or asks for code."""
    from transformers import AutoConfig

    name = location(options)
    with _library(options, name):
        return AutoConfig.from_pretrained(name, **_where(options))


def load_tokenizer(options: ModelOptions, config: Any) -> Any:
    """The model's fast tokenizer, held against its table of embeddings."""
    from transformers import AutoTokenizer

    name = location(options)
    with _library(options, name):
        tokenizer = AutoTokenizer.from_pretrained(name, **_where(options))
    if not tokenizer.is_fast:
        raise ConfigError(
            "the model has no fast tokenizer, which says where each token stands in the text",
            where=f"model.name {name}",
            allowed="a folder with tokenizer.json",
        )
    rows = config.get_text_config().vocab_size
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows or not len(tokenizer):
        raise ConfigError(
            f"the tokenizer does not fit the model: it has the token {highest}, "
            f"the model's embedding table ends at {rows - 1}",
            where=f"model.name {name}",
            mend="use the tokenizer that the model was trained with",
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError("the tokenizer has no padding token", where=f"model.name {name}")
        tokenizer.pad_token = tokenizer.eos_token  # masked by position, never by its number
    return tokenizer


def positions(config: Any) -> int:
    """The most tokens that the model's table of positions has room for."""
    text = config.get_text_config()
    able = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", 10**6)
    if text.model_type in ("roberta", "xlm-roberta", "camembert"):
        able -= 2  # positions begin after the padding's
    return able


def longest(config: Any, tokenizer: Any, asked: int | None) -> int:
    """The most tokens of a text: as asked, or what the model takes up to 512."""
    able = min(positions(config), tokenizer.model_max_length)
    if asked is not None and asked > able:
        raise ConfigError(
            f"{asked} tokens are more than the model takes",
            where="data.max_length",
            allowed=f"up to {able}",
        )
    return asked or min(able, _LONGEST)


def build(
    config: Mapping[str, Any], head: str, options: ModelOptions, training: TrainingOptions
) -> nn.Module:
    """The network of a stored configuration, with random weights that a checkpoint replaces."""
    import transformers

    values = dict(config)
    made = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    auto = getattr(transformers, AUTO[head])
    model = auto.from_config(made, attn_implementation=options.attention, dtype=torch.float32)
    return _prepare(model, options, training)


def load(
    options: ModelOptions,
    training: TrainingOptions,
    config: Any,
    classes: Sequence[str],
    pad_token_id: int,
) -> nn.Module:
    """The pretrained network with a head for `classes` (one output for regression).

    A head that the model already has is kept where it fits: the same classes in another order are
    put in ours. Raises ConfigError where weights of the encoder itself are missing.
    """
    import transformers

    name, head = location(options), options.head
    old = [str(one) for one in (config.id2label or {}).values()]
    _set_up(config, options, classes, pad_token_id)
    auto = getattr(transformers, AUTO[head])
    with _library(options, name):
        model, told = auto.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            attn_implementation=options.attention,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_where(options),
        )
    mismatched = {str(key[0] if isinstance(key, tuple) else key) for key in told["mismatched_keys"]}
    new = set(told["missing_keys"]) | mismatched
    own = head_names(model)
    wrong = sorted(k for k in new if k.partition(".")[0] not in own and "pooler" not in k)
    if wrong:
        raise ConfigError(
            f"the folder is not the whole model: {len(wrong)} tensors are missing or misshapen",
            where=f"model.name {name}: {', '.join(wrong[:5])}" + (", …" if len(wrong) > 5 else ""),
            mend="save the model again with save_pretrained()",
        )
    if head in ("classification", "tokens") and not new:
        _fit_head(model, old, list(classes))
    elif new and head == "causal":
        raise ConfigError(
            "the model has no head that continues a text", where=f"model.name {name}",
            allowed="a causal language model",
        )  # fmt: skip
    _refuse_random(model, new, name, head, training.tune)
    return _prepare(model, options, training)


def _refuse_random(model: nn.Module, new: set[str], name: str, head: str, tune: str) -> None:
    """Refuse new layers that would stay random, as neither last layer nor low-rank updates."""
    if tune == "all" or head == "embedding":  # vectors are pooled from the tokens by us
        return
    last = last_linear(model)
    heads = head_names(model)
    if tune == "head":
        learns = {key for key, p in model.named_parameters() if p is last.weight or p is last.bias}
    else:
        learns = {key for key in new if key.partition(".")[0] in heads}
    if frozen := sorted(new - learns):
        raise ConfigError(
            f"the model lacks layers that training.tune {tune} would leave random: "
            + ", ".join(frozen[:5]),
            where=f"model.name {name}",
            allowed="a model that holds them, or training.tune all, which lets them learn",
        )


def _set_up(config: Any, options: ModelOptions, classes: Sequence[str], pad: int) -> None:
    """Labels, loss and dropout of the configuration."""
    if options.head in ("classification", "tokens"):
        config.id2label = dict(enumerate(classes))
        config.label2id = {label: number for number, label in enumerate(classes)}
    elif options.head == "regression":
        config.num_labels, config.problem_type = 1, "regression"
    config.get_text_config().pad_token_id = config.pad_token_id = pad
    if options.dropout is not None:
        for key in _DROPOUTS:
            if hasattr(config, key):
                setattr(config, key, options.dropout)


def _fit_head(model: nn.Module, old: list[str], classes: list[str]) -> None:
    """A head of the same classes gets our order; one of other classes starts anew."""
    last = last_linear(model)
    if old == classes:
        say("the model's own head is continued", once=True)
    elif set(old) == set(classes):
        order = torch.tensor([old.index(name) for name in classes])
        with torch.no_grad():
            last.weight.copy_(last.weight[order])
            if last.bias is not None:
                last.bias.copy_(last.bias[order])
        say("the model's own head is continued, its classes in the order of the data", once=True)
    else:
        nn.init.normal_(last.weight, std=getattr(model.config, "initializer_range", 0.02))
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        say(f"the model's head is for {', '.join(old[:5])}: a new one is trained", once=True)


def _prepare(model: nn.Module, options: ModelOptions, training: TrainingOptions) -> nn.Module:
    """Low-rank updates, frozen parts and recomputation, as asked."""
    if training.checkpointing:
        model.activation_checkpointing_enable()
        model.config.use_cache = False
    if training.tune == "lora":
        return _lora(model, options)
    if training.tune == "head":
        model.requires_grad_(False)
        last_linear(model).requires_grad_(True)
    return model


def _lora(model: nn.Module, options: ModelOptions) -> nn.Module:
    """Hu et al. 2021, by peft. The head learns as well, and is saved with the adapter."""
    import peft

    config = peft.LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=options.lora_targets or "all-linear",
        modules_to_save=None
        if options.head in ("causal", "embedding")
        else sorted(head_names(model)),
    )
    try:
        with warnings.catch_warnings():  # peft asks transformers under names that it gave up
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            str(error).splitlines()[0],
            where=f"model.lora_targets {options.lora_targets}",
            allowed="the last part of names of linear layers",
        ) from error


def head_names(model: nn.Module) -> set[str]:
    """Children of the model with parameters, without the encoder itself."""
    base = getattr(model, "base_model_prefix", "")
    children = {
        name for name, part in model.named_children() if next(part.parameters(), None) is not None
    }
    return children - {base} if base in children else set()


def last_linear(model: nn.Module) -> nn.Linear:
    """The layer that gives the logits."""
    return [part for part in model.modules() if isinstance(part, nn.Linear)][-1]


def usual_rate(model: nn.Module, training: TrainingOptions) -> float:
    """The learning rate that is customary for what learns; see TrainingOptions."""
    if training.tune != "all":
        return 1e-3
    return 1e-4 if sum(p.numel() for p in model.parameters()) < _SMALL else 3e-5


def parameter_groups(model: nn.Module, training: TrainingOptions) -> list[dict[str, Any]]:
    """Optimiser groups: a rate for each layer, biases and norms without decay.

    The rate falls by `layer_decay` from the head (1) over the layers to the embeddings.
    """
    assert training.learning_rate is not None, "the module fills it in"
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    found = [int(m[1]) for name, _ in named if (m := _LAYER.search(name))]
    top = max(found, default=-1) + 2
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if match := _LAYER.search(name):
            depth = int(match[1]) + 1
        else:
            depth = 0 if "embed" in name or ".wte." in name or ".wpe." in name else top
        rate = training.learning_rate * training.layer_decay ** (top - depth)
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
