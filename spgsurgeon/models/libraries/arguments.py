"""What a file may say of its model: the arguments and descriptions that reach a library, each with type and bounds.

A library's factory takes arguments that fetch, write or load (timm's `cache_dir`, `checkpoint_path`, `pretrained_cfg`
with a `url`), and a `config.json`, a pickled namespace or a manifest can hold any of them. So what is not in a table
here never gets through. The tables name what shapes a module; `Identity` asks them, and nothing is built without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from spgsurgeon.errors import DamagedFileError, UnsafeInputError

_SHOWN = 5  # names or reasons in a message
_NAMED = 12  # names in a hint
_LONGEST_NAME = 60
_MOST_CLASSES = 2**20  # the largest labelled sets of images have some 20,000
_LONGEST_SIDE = 4096  # pixels; the largest models of both libraries take 1,024

Classes = Annotated[int, Field(ge=0, le=_MOST_CLASSES)]
Channels = Annotated[int, Field(ge=1, le=1024)]
Side = Annotated[int, Field(ge=1, le=_LONGEST_SIDE)]
Size = Side | Annotated[Sequence[Side], Field(min_length=2, max_length=2)]
Flag = bool
Rate = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=1000)]
Number = Annotated[int, Field(ge=0, le=2**16)]  # of channels, heads, groups or tokens
Numbers = Number | Annotated[Sequence[Number], Field(max_length=64)]
Depth = Annotated[int, Field(ge=0, le=1024)]
Depths = Depth | Annotated[Sequence[Depth | Annotated[Sequence[Depth], Field(max_length=64)]], Field(max_length=64)]
Ratio = Annotated[float, Field(gt=0, le=256)]
Ratios = Ratio | Annotated[Sequence[Ratio], Field(max_length=64)]
InputSize = Annotated[Sequence[Side], Field(min_length=3, max_length=3)]
PerChannel = Annotated[Sequence[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=1, max_length=1024)]
Spread = Annotated[Sequence[Annotated[float, Field(ge=1e-6, le=1000)]], Field(min_length=1, max_length=1024)]
Level = Annotated[float, Field(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
CropShare = Annotated[float, Field(ge=0.1, le=2)]  # of the shorter edge; timm's own are 0.8 to 1.15
Text = Annotated[str, Field(max_length=10_000)]
Texts = Text | Sequence[Text]
Vocabulary = Annotated[int, Field(ge=1, le=2**22)]  # the largest have some 260,000 words
TokenId = Annotated[int, Field(ge=-1, le=2**22)]
Length = Annotated[int, Field(ge=-1, le=2**24)]  # of texts in tokens; the longest that models take are some 10 million

# fmt: off
Pool = Literal[
    "", "avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax",
    "token", "map", "prr", "soft", "merge", "align",
]
Activation = Literal[
    "relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "gelu_tanh", "quick_gelu", "silu", "swish",
    "mish", "hard_sigmoid", "hard_swish", "hard_mish", "sigmoid", "tanh", "identity",
]
# What a config.json of transformers calls them.
Function = Literal[
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh",
    "gelu_python_tanh", "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "silu", "swish", "mish", "tanh",
    "sigmoid", "linear", "laplace", "prelu",
]
Rotation = Literal[
    "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "partial_rotary_factor", "short_factor",
    "long_factor", "truncate", "rope_type", "type",
]
RotationKind = Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"]
# fmt: on
Attention = Literal["full_attention", "sliding_attention"]
Rotations = Mapping[Rotation, bool | float | RotationKind | Sequence[float] | None]
Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos", "random"]

_Table = dict[str, TypeAdapter[Any]]


def _table(*rows: tuple[Any, str]) -> _Table:
    """Return the type of each name; a row is a type and the names of that type."""
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return {name: TypeAdapter(kind, config=strict) for kind, names in rows for name in names.split()}


_ARGUMENTS: dict[str, _Table] = {
    "timm": _table(
        (Classes, "num_classes"),
        (Channels, "in_chans"),
        (Size, "img_size patch_size window_size mask_unit_size ref_feat_shape"),
        (Pool, "global_pool"),
        (Activation, "act_layer"),
        (Literal["", "none", "learn", "learned", "factorized", "rope"], "pos_embed"),
        (Literal["", "skip", "reset", "jax", "jax_nlhb", "moco"], "weight_init"),
        (Literal["", "same"], "pad_type"),
        (Literal["", "deep", "deep_tiered", "patch", "overlap", "overlap_tiered", "overlap_act"], "stem_type"),
        (Literal[8, 16, 32], "output_stride"),
        (Depths, "depth depths layers stages serial_depths parallel_depth depth_token_only num_blocks"),
        (Numbers, "embed_dim embed_dims dim dims channels widths hidden_size hidden_sizes num_features feature_dim"),
        (
            Numbers,
            "head_hidden_size stem_size stem_width stem_chs base_width base_dim base_dims growth_rate neck_chans",
        ),
        (Numbers, "cardinality groups num_heads num_kv_heads heads head_dim key_dim reg_tokens num_reg_tokens"),
        (Numbers, "num_heads_inner num_heads_outer inner_dim head_widths init_channels num_init_features growth_rates"),
        (Numbers, "k_sec intermediate_size position_embedding_size out_features local_up_to_layer"),
        (Numbers, "attn_pool_num_heads kernel_size kernel_sizes sr_ratios swiglu_align_to window_ratio window_sizes"),
        (Ratios, "mlp_ratio mlp_ratios expand_ratio attn_ratio attn_mlp_ratio attn_pool_mlp_ratio width_mult"),
        (Ratios, "width_factor width channel_multiplier depth_mult deepen_factor widen_factor"),
        (Scale, "init_values layer_scale_init_value ls_init_value head_init_scale norm_eps bn_eps bn_momentum"),
        (Ratio | Annotated[float, Field(gt=0, le=1e9)], "rope_temperature rope_theta"),
        (Rate, "drop_rate drop_path_rate proj_drop_rate attn_drop_rate pos_drop_rate patch_drop_rate drop_block_rate"),
        (Flag, "qkv_bias qk_norm proj_bias mlp_bias conv_bias stem_bias head_bias scale_attn_norm scale_mlp_norm"),
        (Flag, "class_token no_embed_class pool_include_prefix pre_norm final_norm fc_norm use_fc_norm patch_norm"),
        (Flag, "head_norm head_norm_first stem_norm use_post_norm dynamic_img_size dynamic_img_pad strict_img_size"),
        (
            Flag,
            "use_abs_pos_emb use_rel_pos_bias use_shared_rel_pos_bias use_rot_pos_emb use_pos_embed always_partition",
        ),
        (Flag, "swiglu_mlp scale_mlp conv_mlp use_grn use_lab use_mlp_head avg_down aa_stem_only zero_init_last"),
        (Flag, "distilled distillation use_naflex inference_mode fix_init legacy"),
    ),
    "torchvision": _table(
        (Side, "image_size"),
        (Flag, "aux_logits aux_loss transform_input init_weights"),
        (Rate, "dropout attention_dropout stochastic_depth_prob"),
    ),
    "transformers": _table(  # fields of a config.json
        (Vocabulary, "vocab_size"),
        (TokenId | Annotated[Sequence[TokenId], Field(max_length=64)], "eos_token_id"),
        (TokenId, "pad_token_id bos_token_id cls_token_id sep_token_id mask_token_id"),
        (Length, "max_position_embeddings n_positions n_ctx sliding_window max_relative_positions max_length"),
        (Length, "position_buckets local_attention"),
        (Number, "hidden_size intermediate_size embedding_size inner_group_num num_hidden_groups dim hidden_dim"),
        (Number, "num_attention_heads num_key_value_heads head_dim n_heads n_embd n_head n_inner attention_head_size"),
        (Number, "type_vocab_size relative_attention_num_buckets pooler_hidden_size max_window_layers"),
        (Number, "pretraining_tp global_attn_every_n_layers num_channels encoder_stride pooler_output_size"),
        (Number, "num_conv_pos_embeddings num_conv_pos_embedding_groups num_feat_extract_layers classifier_proj_size"),
        (Number, "chunk_size_feed_forward"),
        (Number, "mask_time_length mask_time_min_masks mask_feature_length mask_feature_min_masks num_mel_bins"),
        (Number, "num_adapter_layers adapter_kernel_size adapter_stride output_hidden_size frequency_stride"),
        (Number, "time_stride num_codevectors_per_group num_codevector_groups codevector_dim proj_codevector_dim"),
        (Numbers, "conv_dim conv_kernel conv_stride tdnn_dim tdnn_kernel tdnn_dilation"),
        (Depth, "num_hidden_layers n_layer n_layers"),
        (Size, "image_size patch_size window_size"),
        (Number, "num_ctc_classes num_negatives num_buckets max_bucket_distance xvector_output_dim adapter_attn_dim"),
        (Numbers, "num_heads hidden_sizes"),
        (Number, "embed_dim"),
        (Depths, "depths num_stages"),
        (Ratio, "mlp_ratio"),
        (Scale, "layer_scale_init_value layerscale_value contrastive_logits_temperature diversity_loss_weight"),
        (Literal["sum", "mean"], "ctc_loss_reduction"),
        (Scale, "layer_norm_eps layer_norm_epsilon rms_norm_eps norm_eps initializer_range initializer_cutoff_factor"),
        (Rate, "hidden_dropout_prob attention_probs_dropout_prob classifier_dropout classifier_dropout_prob dropout"),
        (Rate, "attention_dropout qa_dropout seq_classif_dropout attn_pdrop embd_pdrop resid_pdrop pooler_dropout"),
        (Rate, "embedding_dropout mlp_dropout hidden_dropout activation_dropout feat_proj_dropout final_dropout"),
        (Rate, "feat_quantizer_dropout layerdrop mask_time_prob mask_feature_prob summary_first_dropout"),
        (Rate, "summary_last_dropout drop_path_rate"),
        (Function, "hidden_act hidden_activation activation activation_function classifier_activation"),
        (Function, "pooler_hidden_act pooler_act feat_extract_activation summary_activation"),
        (Literal["cls", "mean"], "classifier_pooling"),
        (Literal["first", "last", "mean", "cls_index"], "summary_type"),
        (Literal["group", "layer"], "feat_extract_norm"),
        (Literal["layer_norm", "layer_norm|batch_norm"], "norm_rel_ebd"),
        (Literal["c2p", "p2c", "c2p|p2c", "p2c|c2p"] | Sequence[Literal["c2p", "p2c"]], "pos_att_type"),
        (Annotated[Sequence[Attention], Field(max_length=1024)], "layer_types"),
        (Rotations | Mapping[Attention, Rotations | None], "rope_parameters"),
        (Rotations, "rope_scaling"),
        (Annotated[float, Field(gt=0, le=1e9)], "rope_theta global_rope_theta local_rope_theta"),
        (Flag, "tie_word_embeddings use_cache is_decoder add_cross_attention sinusoidal_pos_embds legacy qkv_bias"),
        (Flag, "relative_attention position_biased_input share_att_key attention_bias mlp_bias norm_bias decoder_bias"),
        (Flag, "classifier_bias scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn"),
        (Flag, "use_sliding_window summary_use_proj summary_proj_to_labels do_stable_layer_norm conv_bias add_adapter"),
        (Flag, "apply_spec_augment use_weighted_layer_sum sparse_prediction feat_proj_layer_norm conv_pos_batch_norm"),
        (Flag, "use_absolute_embeddings use_absolute_position_embeddings use_relative_position_bias use_mask_token"),
        (Flag, "use_shared_relative_position_bias use_mean_pooling use_swiglu_ffn apply_layernorm ctc_zero_infinity"),
    ),
}

_NULLS = ("transformers",)  # null in a config.json is a value: no window, where leaving it out means one of 4,096

# What describes weights and their images in timm's `pretrained_cfg`; where weights come from is not among it.
_DESCRIPTION = _table(
    (Text, "architecture tag license description origin_url paper_name"),
    (Texts, "paper_ids notes first_conv classifier"),
    (Texts | Mapping[str, Text], "label_names label_descriptions"),
    (InputSize, "input_size test_input_size min_input_size"),
    (Size, "pool_size test_pool_size"),
    (Flag, "fixed_input_size"),
    (Interpolation, "interpolation"),
    (CropShare, "crop_pct test_crop_pct"),
    (Literal["center", "squash", "border"], "crop_mode"),
    (PerChannel, "mean"),
    (Spread, "std"),
    (Classes, "num_classes"),
)
# How samples are prepared, as an exported file says it: images, texts and sounds.
_SPECTROGRAM = _table((Side, "frames bins"), (Flag, "normalizes"), (Level, "mean"), (Deviation, "std"))
_PREPROCESSING = _table(
    (InputSize, "input_size"),
    (PerChannel, "mean"),
    (Spread, "std"),
    (Interpolation, "interpolation"),
    (CropShare, "crop_pct"),
    (Literal["center", "squash", "border"], "crop_mode"),
    (Flag, "crop_rounds_down segments normalizes masks"),
    (Length, "max_length usual_length"),
    (Vocabulary, "vocabulary"),
    (TokenId, "pad end"),
    (Annotated[str, Field(max_length=100)], "mask"),
    (Annotated[int, Field(ge=4_000, le=192_000)], "rate"),
    (Length, "shortest shortest_to_train"),
    (Annotated[float, Field(gt=0, le=1e6)], "max_seconds"),
    (Mapping[str, Any], "spectrogram"),
)
_CONFIG = _table(
    (Text, "library architecture"),
    (Classes, "num_classes"),
    (Texts | Mapping[str, Text], "label_names label_descriptions"),
    (Mapping[str, Any], "model_args pretrained_cfg"),
)
_MANIFEST = _table((Text, "library architecture hub_id"), (Classes, "num_classes"), (Mapping[str, Any], "model_args"))
_TRAINING = _ARGUMENTS["timm"] | _DESCRIPTION | _table((Mapping[str, Any], "model_kwargs"))


def checked_arguments(library: str, given: Mapping[str, Any], place: str = "model_args") -> dict[str, Any]:
    """Return `given`, arguments of a factory of `library`, without those that are None, where these stand for none.

    Raises UnsafeInputError naming those that are not in the table, and DamagedFileError naming one that is of another
    type or out of bounds; `place` says where they were found.
    """
    table = _ARGUMENTS.get(library, {})
    given = {name: value for name, value in given.items() if value is not None or library in _NULLS}
    if strange := [name for name in given if name not in table]:
        raise UnsafeInputError(
            f"{place}: {', '.join(_shown(name) for name in strange[:_SHOWN])} "
            f"{'is' if len(strange) == 1 else 'are'} not among the arguments that a file may give to {library}",
            hint=f"allowed is what shapes a model, such as {', '.join(list(table)[:_NAMED])}; if you trust the file, "
            "save model.state_dict() alone and name the architecture with --arch",
            unsafe=[_shown(name) for name in strange],
            allowed=sorted(table),
        )
    _check(table, given, place)
    return given


def allowed_arguments(library: str, document: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return those fields of a `document` at `place` that may reach `library`; all others are left out.

    Raises DamagedFileError naming one that is of another type or out of bounds.
    """
    table = _ARGUMENTS[library]
    known = {name: value for name, value in document.items() if name in table}
    _check(table, known, place)
    return known


def checked_description(given: Mapping[str, Any], place: str = "pretrained_cfg") -> dict[str, Any]:
    """Return what `given`, in the words of timm's `pretrained_cfg`, says of weights and their images.

    Where weights come from (`url`, `file`, `hf_hub_id`, `custom_load`, ...) and what is not known is left out. Raises
    DamagedFileError naming what is of another type or out of bounds.
    """
    known = {key: value for key, value in given.items() if key in _DESCRIPTION and value is not None}
    _check(_DESCRIPTION, known, place)
    return known


def checked_preprocessing(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return what `given` says of how samples are prepared.

    Raises UnsafeInputError for what is not in the table, DamagedFileError for another type or a value out of bounds.
    """
    for table, said in ((_PREPROCESSING, given), (_SPECTROGRAM, given.get("spectrogram") or {})):
        if strange := [_shown(name) for name in said if name not in table]:
            raise UnsafeInputError(
                f"{place}: {', '.join(strange[:_SHOWN])} is not known of how samples are prepared", unsafe=strange
            )
        _check(table, said, place)
    return dict(given)


def check_config(config: Mapping[str, Any], largest: int, place: str) -> None:
    """Check what a `config.json` at `place` says of the model; `largest` is the largest dimension of its tensors."""
    _check(_CONFIG, config, place)
    if (config.get("num_classes") or 0) > largest:
        raise DamagedFileError(
            f"{place} is damaged: it says {config['num_classes']} classes, and no tensor beside it has more than "
            f"{largest} entries in a dimension"
        )
    checked_arguments(config.get("library") or "timm", config.get("model_args") or {}, f"{place}: model_args")
    checked_description(config.get("pretrained_cfg") or {}, f"{place}: pretrained_cfg")


def check_manifest(base: Mapping[str, Any], place: str) -> None:
    """Check what a `graft.json` at `place` says of its base."""
    _check(_MANIFEST, base, place)
    checked_arguments(base["library"], base["model_args"], f"{place}: model_args")


def check_training_arguments(given: Mapping[str, Any], place: str) -> None:
    """Check what a training script recorded of its model in the file at `place`; see `Library`."""
    _check(_TRAINING, given, place)
    checked_arguments("timm", given.get("model_kwargs") or {}, f"{place}: model_kwargs")


def _check(table: _Table, given: Mapping[str, Any], place: str) -> None:
    for name in given.keys() & table.keys():
        if given[name] is None:
            continue
        try:
            table[name].validate_python(given[name])
        except ValidationError as error:
            reasons = dict.fromkeys(fault["msg"].lower() for fault in error.errors(include_url=False))
            raise DamagedFileError(
                f"{place} is damaged: {name} is {given[name]!a:.60}; {' or '.join(list(reasons)[:_SHOWN]):.200}"
            ) from error


def _shown(name: object) -> str:
    return ascii(str(name)[:_LONGEST_NAME])[1:-1]
