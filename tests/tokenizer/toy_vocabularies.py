"""Small vocabularies such as other people bring, trained here, and ways to spell a special token."""

import io
import json
from functools import cache
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "a red cat sat on the mat. The Cat is RED!",
    "<s> is a tag, </s> too, and <b>bold</b> [CLS] [SEP] <unk> <mask> [UNK]",
    "naïve café 你好。 🙂 don't 123 <|im_start|> ｜",
    "This picture is text 4567890. It has two sentences; hum",
] * 20
LONG = "a red Cat sat on the mat. <s> is a Tag! naïve café 你好。第三句。\nThe   end " * 12


@cache
def byte_level() -> bytes:
    """As of GPT-2: byte-level BPE, special tokens in and behind the model's own ids, a run of spaces added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("   ", normalized=False), AddedToken("<tool>", special=False)])
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_token="<s>", pad_id=1)
    return tokenizer.to_str().encode()


@cache
def byte_level_nfc() -> bytes:
    """As of Qwen: the same, and a normaliser."""
    value = json.loads(byte_level())
    return json.dumps({**value, "normalizer": {"type": "NFC"}}).encode()


@cache
def unigram() -> bytes:
    """As of T5: the special tokens lie in the model's own vocabulary; NFKC and small letters lose something."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=110, special_tokens=["<unk>", "<s>", "</s>", "<mask>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str().encode()


@cache
def wordpiece() -> bytes:
    """As of BERT, but words are cut at white space alone: `[CLS]` is one word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str().encode()


VOCABULARIES = {f.__name__: f for f in (byte_level, byte_level_nfc, unigram, wordpiece)}


def spm(**options: Any) -> bytes:
    """A SentencePiece model as its trainer makes one: NFKC, a space in front, no byte pieces, unless told otherwise."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, hard_vocab_limit=False, minloglevel=2,
        **{"vocab_size": 90, **options},
    )  # fmt: skip
    return model.getvalue()


def spellings(name: str) -> st.SearchStrategy[str]:
    """Texts that hold the name of a special token, or what looks or normalises like it, somewhere."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)
    inside = st.integers(0, len(name))
    variants = st.one_of(
        st.sampled_from([name, wide, name.upper(), name.lower(), name.swapcase(), name.title(), name * 2, f"{name}\0"]),
        st.builds(
            lambda i, c: name[:i] + c + name[i:], inside, st.sampled_from("\u200d\u200b\ufeff\u00ad \u0301\uffff")
        ),
        st.builds(lambda i: name[:i] + name + name[i:], inside),  # a name inside a name
        st.builds(lambda i: name[:i] + wide[i:], inside),
        st.just(name.replace("<", "\u2039").replace(">", "\u203a").replace("[", "\uff3b").replace("]", "\uff3d")),
        st.integers(0, 9).map(lambda i: f"\uffff{i}"),
    )
    around = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return st.builds("".join, st.tuples(around, variants, around))
