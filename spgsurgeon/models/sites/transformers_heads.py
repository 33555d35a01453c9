"""Where replicas attach in the models of transformers: a table of their classes. Nothing here needs torch.

A table and no search: tracing on the meta device fails for some classes, whose masks ask for numbers. A class is in it
once the laws are tested on it.

Shapes: N samples, T replicas, D = width of the hidden state, C = number of classes, or of words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TEXT, TOKENS, QUESTION, CHOICE = "text-classification", "token-classification", "question-answering", "multiple-choice"
MASKED, CAUSAL, AUDIO, IMAGE = "masked-lm", "causal-lm", "audio-classification", "classification"
LABELLED = (TEXT, TOKENS, AUDIO, IMAGE)
"""Tasks whose classes have names, and can be others: a new head can be of any number of them."""
PIPELINES = {
    **{task: task for task in (TEXT, TOKENS, QUESTION, CHOICE, AUDIO)},
    MASKED: "fill-mask",
    CAUSAL: "text-generation",
    IMAGE: "image-classification",
}
"""What the Hub and transformers' `pipeline` call these tasks."""

_OUTPUTS = {
    MASKED: "a vocabulary of {:,}",
    CAUSAL: "a vocabulary of {:,}",
    QUESTION: "start and end of the answer",
    CHOICE: "a score of each choice",
}


def outputs_in_words(task: str | None, outputs: int) -> str:
    """Return what so many outputs of a head stand for: classes, unless the task says otherwise."""
    return _OUTPUTS.get(task or "", "{} classes").format(outputs)


@dataclass(frozen=True)
class Family:
    """Models of one `model_type` of a config.json. `prefix` begins the names of its classes.

    `body` is the submodule of a model with a head that the others have too (transformers' `base_model_prefix`), `words`
    the path in it of the embeddings that heads may share. `modality` says what the body reads: text, waves or a
    spectrogram of sound, or images. `segments`: its tokenizer tells it which of two texts a token is of.
    `layers` are the classes of its encoder's layers, none if replicas of depth can't follow the last of them.
    """

    model_type: str
    prefix: str
    body: str
    words: str = ""
    modality: str = "text"
    segments: bool = False
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """A class of transformers. Replicas attach to what enters `module`; the logits leave `logits`, by default the same.

    `tied` is the key of the weight that `logits` shares, unless config.json says otherwise, and `untied` that it does
    not unless config.json says so. `tiled`: what follows `module` reads the model's own inputs (a mask, or ids) beside
    the hidden state, so it needs them (T+1) times. `remembers`: it keeps keys and values for a next token.
    """

    name: str
    family: Family
    task: str
    module: str
    logits: str
    tied: str | None = None
    untied: bool = False
    tiled: bool = False
    remembers: bool = False

    def ties(self, says: bool | None) -> bool:
        """Return whether its words are shared; `says` is the `tie_word_embeddings` of config.json, None if left out."""
        return self.tied is not None and (not self.untied if says is None else says)


# fmt: off
_FAMILIES = {family.model_type: family for family in (
    Family("bert", "Bert", "bert", "embeddings.word_embeddings", segments=True, layers=("BertLayer",)),
    Family("roberta", "Roberta", "roberta", "embeddings.word_embeddings", layers=("RobertaLayer",)),
    Family("xlm-roberta", "XLMRoberta", "roberta", "embeddings.word_embeddings", layers=("XLMRobertaLayer",)),
    Family("distilbert", "DistilBert", "distilbert", "embeddings.word_embeddings", layers=("TransformerBlock",)),
    Family("albert", "Albert", "albert", "embeddings.word_embeddings", segments=True),
    Family("electra", "Electra", "electra", "embeddings.word_embeddings", segments=True, layers=("ElectraLayer",)),
    Family("deberta-v2", "DebertaV2", "deberta", "embeddings.word_embeddings", segments=True,
           layers=("DebertaV2Layer",)),
    Family("mpnet", "MPNet", "mpnet", "embeddings.word_embeddings", layers=("MPNetLayer",)),
    Family("modernbert", "ModernBert", "model", "embeddings.tok_embeddings", layers=("ModernBertEncoderLayer",)),
    Family("gpt2", "GPT2", "transformer", "wte"),
    Family("llama", "Llama", "model", "embed_tokens"),
    Family("qwen2", "Qwen2", "model", "embed_tokens"),
    Family("qwen3", "Qwen3", "model", "embed_tokens"),
    Family("gemma", "Gemma", "model", "embed_tokens"),
    Family("wav2vec2", "Wav2Vec2", "wav2vec2", modality="waves",
           layers=("Wav2Vec2EncoderLayer", "Wav2Vec2EncoderLayerStableLayerNorm")),
    Family("hubert", "Hubert", "hubert", modality="waves",
           layers=("HubertEncoderLayer", "HubertEncoderLayerStableLayerNorm")),
    Family("wavlm", "WavLM", "wavlm", modality="waves",
           layers=("WavLMEncoderLayer", "WavLMEncoderLayerStableLayerNorm")),
    Family("audio-spectrogram-transformer", "AST", "audio_spectrogram_transformer", modality="spectrogram",
           layers=("ASTLayer",)),
    Family("vit", "ViT", "vit", modality="images", layers=("ViTLayer",)),
    Family("deit", "DeiT", "deit", modality="images", layers=("DeiTLayer",)),
    Family("beit", "Beit", "beit", modality="images", layers=("BeitLayer",)),
    Family("swin", "Swin", "swin", modality="images"),
    Family("convnext", "ConvNext", "convnext", modality="images"),
    Family("dinov2", "Dinov2", "dinov2", modality="images", layers=("Dinov2Layer",)),
)}
# fmt: on


def _heads(
    task: str,
    suffix: str,
    module: str,
    families: str,
    *,
    logits: str | None = None,
    tied: bool = False,
    untied: str = "",
    tiled: bool = False,
    remembers: bool = False,
) -> Iterable[Head]:
    """Give a row for each of the `families`; those in `untied` don't share their words unless told to."""
    for family in (_FAMILIES[model_type] for model_type in families.split()):
        words = f"{family.body}.{family.words}.weight" if tied else None
        name, alone = family.prefix + suffix, family.model_type in untied.split()
        yield Head(name, family, task, module, logits or module, words, alone, tiled, remembers)


_SEQUENCE = "ForSequenceClassification"
_DECODERS, _UNTIED = "llama qwen2 qwen3 gemma", "llama qwen2 qwen3"
_ENCODERS = "bert roberta xlm-roberta distilbert albert electra deberta-v2 mpnet modernbert"

HEADS: dict[str, Head] = {
    head.name: head
    for heads in (
        _heads(TEXT, _SEQUENCE, "classifier", "bert distilbert albert deberta-v2 modernbert"),
        _heads(TEXT, _SEQUENCE, "classifier.out_proj", "roberta xlm-roberta electra mpnet"),
        _heads(TEXT, _SEQUENCE, "score", "gpt2 llama qwen2", tiled=True, remembers=True),
        _heads(TOKENS, "ForTokenClassification", "classifier", _ENCODERS),
        _heads(TOKENS, "ForTokenClassification", "score", "llama qwen2", remembers=True),
        _heads(QUESTION, "ForQuestionAnswering", "qa_outputs", _ENCODERS.removesuffix(" modernbert")),
        _heads(QUESTION, "ForQuestionAnswering", "classifier", "modernbert"),
        _heads(CHOICE, "ForMultipleChoice", "classifier", _ENCODERS),
        _heads(MASKED, "ForMaskedLM", "cls.predictions.decoder", "bert", tied=True),
        _heads(MASKED, "ForMaskedLM", "lm_head.decoder", "roberta xlm-roberta mpnet", tied=True),
        _heads(MASKED, "ForMaskedLM", "vocab_projector", "distilbert", tied=True),
        _heads(MASKED, "ForMaskedLM", "predictions.decoder", "albert", tied=True),
        _heads(MASKED, "ForMaskedLM", "generator_lm_head", "electra", tied=True),
        _heads(MASKED, "ForMaskedLM", "cls.predictions.decoder", "deberta-v2", tied=True),
        _heads(MASKED, "ForMaskedLM", "decoder", "modernbert", tied=True),
        _heads(CAUSAL, "LMHeadModel", "lm_head", "gpt2", tied=True, remembers=True),
        _heads(AUDIO, _SEQUENCE, "projector", "wav2vec2 hubert wavlm", logits="classifier", tiled=True),
        _heads(AUDIO, "ForAudioClassification", "classifier.dense", "audio-spectrogram-transformer"),
        _heads(IMAGE, "ForImageClassification", "classifier", "vit deit beit swin convnext dinov2"),
        _heads(CAUSAL, "ForCausalLM", "lm_head", _DECODERS, tied=True, untied=_UNTIED, remembers=True),
    )
    for head in heads
}
"""Each class that can be grafted, by its name."""

MODEL_TYPES = tuple(dict.fromkeys(head.family.model_type for head in HEADS.values()))


def heads_of(model_type: str) -> dict[str, Head]:
    """Return the heads that a model of this type can have, by their tasks."""
    return {head.task: head for head in HEADS.values() if head.family.model_type == model_type}


def default_head(model_type: str) -> Head | None:
    """Return the head that a model without one gets if its task is not said: the first in the table."""
    return next(iter(heads_of(model_type).values()), None)


def head_of_class(kind: type) -> Head | None:
    """Return the head of a class of transformers; None for a class that is not in the table, or not transformers' own.

    Classes derived from one in the table are not it: what they do with the hidden state is not known.
    """
    return HEADS.get(kind.__name__) if kind.__module__.startswith("transformers.models.") else None
