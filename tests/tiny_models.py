"""Small encoders with random weights, saved as sentence-transformers does: made in a moment, read by any runtime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ["how", "do", "i", "reset", "my", "password", "a", "text", "is", "open", "query", ":", "##s"]
WINDOW = 32


def tiny_bert(
    folder: Path,
    *,
    pooling: str | Sequence[str] = "mean",
    prompts: dict[str, str] | None = None,
    default_prompt: str | None = None,
    include_prompt: bool = True,
    dense: bool = False,
) -> Path:
    """A model of two small layers with a WordPiece vocabulary of a few words, in ``folder``."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    raw = folder / "raw"
    raw.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (raw / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(7)
    BertModel(BertConfig(**_sizes(len(words)))).save_pretrained(raw)
    BertTokenizer.from_pretrained(raw, model_max_length=WINDOW).save_pretrained(raw)
    return _saved(folder / "model", raw, pooling, prompts, default_prompt, include_prompt=include_prompt, dense=dense)


def tiny_xlm_roberta(folder: Path) -> Path:
    """As bge-m3 is made: Unigram pieces, positions counted from behind the padding's id, the first token pooled."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    raw = folder / "raw"
    raw.mkdir(parents=True)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(name, 0.0) for name in special] + [(f"▁{word}", -2.0) for word in WORDS] + [("▁", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=WINDOW,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(raw)
    torch.manual_seed(7)
    sizes = {**_sizes(len(pieces)), "max_position_embeddings": WINDOW + 2, "type_vocab_size": 1}
    XLMRobertaModel(XLMRobertaConfig(**sizes, pad_token_id=1, bos_token_id=0, eos_token_id=2)).save_pretrained(raw)
    return _saved(folder / "model", raw, "cls")


def with_raw_graph(model: Path) -> Path:
    """Put an ``onnx/model.onnx`` into the folder, as on the hub: it ends with the vectors of the tokens."""
    import torch
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(model).eval()

    class Raw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state

    (model / "onnx").mkdir()
    ids = torch.tensor([[2, 5, 6, 3], [2, 5, 3, 0]])
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Raw(),
            (ids, (ids > 0).long(), torch.zeros_like(ids)),
            str(model / "onnx" / "model.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*names, "last_hidden_state"]},
        )
    return model


def _sizes(vocabulary: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": WINDOW,
    }


def _saved(
    folder: Path,
    raw: Path,
    pooling: str | Sequence[str],
    prompts: dict[str, str] | None = None,
    default_prompt: str | None = None,
    *,
    include_prompt: bool = True,
    dense: bool = False,
) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    encoder = Transformer(str(raw))
    kinds = pooling if isinstance(pooling, str) else tuple(pooling)
    pool = Pooling(16, kinds, include_prompt=include_prompt)
    more = [Dense(16, 8)] if dense else []
    model = SentenceTransformer(
        modules=[encoder, pool, *more, Normalize()],
        prompts=prompts,
        default_prompt_name=default_prompt,
        device="cpu",
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
