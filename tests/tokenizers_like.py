"""Small tokenizers with the conventions of well-known ones, and their chat templates' shape.

Each has a byte alphabet or a byte fallback and a few merges; what is true to the original is the
normalizer, the pre-tokenizer, the decoder, the post-processor, the special tokens and the template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') "
    "+ message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{{ bos_token + content if loop.index0 == 0 else content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' "
    "%}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}" + _ALTERNATE + "{% set role = 'model' if message['role'] == "
    "'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
#: A template that begins with a line of its own before BOS.
NEWLINE = "\n{{ bos_token }}{% for message in messages %}[{{ message['content'] }}]{% endfor %}"

_MERGES = ("a n", "t h", "th e", "i n", "an d", "o n")


def _bpe(special: Sequence[str], alphabet: Sequence[str], space: str, **options: Any) -> BPE:
    """Return a BPE model with merges of letters, and of a space and a letter."""
    pairs = [tuple(pair.split()) for pair in _MERGES] + [(space, "a"), (space, "w")]
    words = [*special, *alphabet, *("".join(pair) for pair in pairs)]
    return BPE(vocab={word: n for n, word in enumerate(words)}, merges=pairs, **options)


def _bytes(special: Sequence[str]) -> Tokenizer:
    """Return a byte-level tokenizer, as those of GPT-2, Llama 3 and Qwen are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(_bpe(special, alphabet, "Ġ"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _pieces(special: Sequence[str]) -> Tokenizer:
    """Return a tokenizer of pieces with a byte fallback, as SentencePiece's are."""
    alphabet = [f"<0x{number:02X}>" for number in range(256)]
    alphabet += ["▁", *map(chr, range(33, 127))]
    model = _bpe(special, alphabet, "▁", unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return Tokenizer(model)


def _wrapped(
    tokenizer: Tokenizer, template: str | None, front: str = "", back: str = "", **special: str
) -> Any:
    """Return the tokenizer with a post-processor that puts `front` before a text, `back` after."""
    names = [token for token in (front, back) if token]
    if names:
        single = " ".join(filter(None, [front, "$A", back]))
        ids = [(token, tokenizer.token_to_id(token)) for token in names]
        added = processors.TemplateProcessing(single, f"{single} $B", ids)
        before = tokenizer.post_processor
        tokenizer.post_processor = processors.Sequence([before, added]) if before else added
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    made.chat_template = template
    return made


def llama2(*, back: str = "", template: str | None = LLAMA2) -> Any:
    """Normalizer with a dummy prefix; BOS by the post-processor and by the template."""
    tokenizer = _pieces(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), _strip()]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _wrapped(tokenizer, template, "<s>", back, **special)


def mistral(*, back: str = "", template: str | None = MISTRAL) -> Any:
    """Metaspace with a dummy prefix before the first piece; a template without system turns."""
    tokenizer = _pieces(["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), _strip()]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _wrapped(tokenizer, template, "<s>", back, **special)


def _strip() -> decoders.Decoder:
    return decoders.Strip(content=" ", left=1, right=0)


def gemma(*, back: str = "", template: str | None = GEMMA) -> Any:
    """No dummy prefix; the turn's end is another token than EOS."""
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = _pieces(["<pad>", "<eos>", "<bos>", "<unk>", *turns])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    more = {"pad_token": "<pad>", "extra_special_tokens": turns}
    return _wrapped(tokenizer, template, "<bos>", back, **special, **more)


def llama3(*, back: str = "", template: str | None = LLAMA3) -> Any:
    """Byte-level with BOS, by the post-processor and by the template."""
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _bytes(["<|begin_of_text|>", "<|end_of_text|>", *marks])
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return _wrapped(
        tokenizer, template, "<|begin_of_text|>", back, **special, extra_special_tokens=marks
    )


def qwen(*, back: str = "", template: str | None = QWEN) -> Any:
    """Byte-level without BOS; a template with a system turn of its own."""
    tokenizer = _bytes(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    more = {"extra_special_tokens": ["<|im_start|>"]}
    return _wrapped(tokenizer, template, "", back, **special, **more)


def phi3(*, back: str = "", template: str | None = PHI3) -> Any:
    """BOS by the post-processor alone: the template writes none."""
    marks = ["<|user|>", "<|system|>", "<|assistant|>", "<|end|>"]
    tokenizer = _pieces(["<unk>", "<s>", "</s>", "<|endoftext|>", *marks])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), _strip()]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|endoftext|>"}
    return _wrapped(tokenizer, template, "<s>", back, **special, extra_special_tokens=marks)


def gpt2(*, back: str = "", template: str | None = None) -> Any:
    """Byte-level; one token for BOS, EOS and unknown, put nowhere; no chat template."""
    tokenizer = _bytes(["<|endoftext|>"])
    names = ("bos_token", "eos_token", "unk_token")
    return _wrapped(tokenizer, template, "", back, **dict.fromkeys(names, "<|endoftext|>"))


LIKE: dict[str, Callable[..., Any]] = {
    "llama2": llama2,
    "llama3": llama3,
    "mistral": mistral,
    "gemma": gemma,
    "qwen": qwen,
    "phi3": phi3,
    "gpt2": gpt2,
}
#: What stands before a text by each one's usual convention.
FRONT = {
    "llama2": ["<s>"],
    "llama3": ["<|begin_of_text|>"],
    "mistral": ["<s>"],
    "gemma": ["<bos>"],
    "qwen": [],
    "phi3": ["<s>"],
    "gpt2": [],
}
#: What a post-processor that appends EOS puts after a text.
EOS = {name: made().eos_token for name, made in LIKE.items()}
