"""How a model of texts wants them: which tokenizer, how many tokens, and what fills up the shorter ones of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spgsurgeon.errors import DamagedFileError, DataError, UsageError, first_line
from spgsurgeon.models.preprocessor_file import read_object
from spgsurgeon.models.sites.transformers_heads import CAUSAL, MASKED, Head

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE, TOKENIZER_SETTINGS = "tokenizer.json", "tokenizer_config.json"
_RESERVED = {"roberta": 2, "xlm-roberta": 2, "mpnet": 2}  # positions that these keep for padding
_OLDER = {"vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model"}
_CONVERT = "transformers writes it of older files: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
_UNKNOWN_LENGTH = 2**20  # what is longer stands for "not known" in a tokenizer's settings
_LONGEST_BLOCK = 1024  # tokens that a language model reads at once unless more are asked for, as in run_clm and run_mlm


@dataclass(frozen=True)
class TextPreprocessing:
    """What happens to a text before the model sees it.

    `max_length` is the most tokens of a sample, those that the tokenizer adds included; `pad` is the number of the
    token that fills up shorter ones, which the attention mask leaves out. `segments` says whether the model is told
    which of two texts a token is of (`token_type_ids`).
    """

    file: Path
    """The tokenizer, as Hugging Face's tokenizers writes it."""
    max_length: int
    pad: int
    segments: bool
    stops_at_longer: bool = False
    """Whether a longer text is refused instead of cut."""
    usual_length: int | None = None
    """The `max_length` if nobody says one; None: as many as the model takes."""
    vocabulary: int | None = None
    """How many tokens the model knows; None: it is not known."""
    end: int | None = None
    """The number of the token that ends a text for the model, if it says one."""
    mask: str | None = None
    """The token that stands for one that is to be predicted, if the tokenizer has one."""
    mlm_probability: float = 0.15
    """How likely a token is to be predicted, in training a masked language model."""

    def at(self, image_size: int | None) -> TextPreprocessing:
        """Return the same preprocessing. Raises UsageError for an image size, which texts don't have."""
        if image_size is not None:
            raise UsageError("an image size is for models of images, and this one reads texts", hint="leave it out")
        return self

    def limited(
        self, max_length: int | None, max_seconds: float | None = None, *, stops: bool = False
    ) -> TextPreprocessing:
        """Return the same with at most so many tokens (None: as many as the model takes).

        Raises UsageError for more than the model takes, and for a number of seconds.
        """
        if max_seconds is not None:
            raise UsageError("a number of seconds is for models of sounds, not of texts", hint="leave it out")
        if max_length is not None and not 0 < max_length <= self.max_length:
            raise UsageError(
                f"the model takes 1 to {self.max_length} tokens (got {max_length})",
                hint="data.max_length (eval: --max-length) says how many are read",
                code="too-long",
            )
        return replace(self, max_length=max_length or self.usual_length or self.max_length, stops_at_longer=stops)

    def check_known(self, token: int) -> None:
        """Raise DataError if the highest token of a text is one that the model does not know."""
        if self.vocabulary is not None and token >= self.vocabulary:
            raise DataError(
                f"the tokenizer has a token {token}, and the model knows those below {self.vocabulary}",
                hint=f"is {self.file} the model's own?",
                code="unfit-vocabulary",
            )

    def mask_token(self) -> int:
        """Return the number of the token that stands for one that is to be predicted. Raises UsageError for none."""
        found = None if self.mask is None else self.tokenizer().token_to_id(self.mask)
        if found is None:
            raise UsageError(
                f"the tokenizer in {self.file.parent} has no mask token, and masked tokens can't be predicted without",
                hint=f'{TOKENIZER_SETTINGS} says it, as in "mask_token": "[MASK]"',
                code="no-mask-token",
            )
        return found

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, without what its file says of padding and cutting. Raises DamagedFileError."""
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_str(self.file.read_text(encoding="utf-8"))
        except Exception as error:  # whatever a damaged file trips in it
            raise DamagedFileError(f"{self.file} is not a tokenizer: {first_line(error)}") from error
        found.no_padding()
        found.no_truncation()
        return found


def text_preprocessing(head: Head, config: Any, companions: Sequence[Path], name: str) -> TextPreprocessing:
    """Return how a model of this class and transformers `config` wants its texts; `companions` lie beside its weights.

    Raises UsageError if no tokenizer is among them.
    """
    beside = {path.name: path for path in companions}
    if TOKENIZER_FILE not in beside:
        raise UsageError(
            f"{name} has no {TOKENIZER_FILE} beside its weights, so texts can't be read",
            hint=_CONVERT if beside.keys() & _OLDER else "copy it from the base",
            code="missing-tokenizer",
        )
    settings = read_object(beside[TOKENIZER_SETTINGS]) if TOKENIZER_SETTINGS in beside else {}
    positions = most_tokens(head, config)
    said = settings.get("model_max_length")
    longest = min(positions, said) if type(said) is int and said > 0 else positions
    pad = config.pad_token_id
    return TextPreprocessing(
        beside[TOKENIZER_FILE],
        longest,
        0 if pad is None else pad,
        head.family.segments,
        usual_length=min(longest, _LONGEST_BLOCK) if head.task in (CAUSAL, MASKED) else None,
        vocabulary=config.vocab_size,
        end=_first(getattr(config, "eos_token_id", None)),
        mask=_mask_of(settings),
    )


def most_tokens(head: Head, config: Any) -> int:
    """Return how many tokens a model of this class and transformers `config` has positions for."""
    positions = getattr(config, "max_position_embeddings", None) or _UNKNOWN_LENGTH
    return int(positions) - _RESERVED.get(head.family.model_type, 0)


def _first(numbers: Any) -> int | None:
    """Return a number, or the first one of several."""
    found: int | None = next(iter(numbers), None) if isinstance(numbers, list | tuple) else numbers
    return found


def _mask_of(settings: dict[str, Any]) -> str | None:
    """Return the mask token that a tokenizer's settings say, as a text or as an object with one."""
    said = settings.get("mask_token")
    said = said.get("content") if isinstance(said, dict) else said
    return said if isinstance(said, str) else None
