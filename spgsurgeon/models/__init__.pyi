from .deferred_head import head_deferred
from .graph_inputs import BATCH, GraphInputs, Sizes, image_inputs
from .inputs import IMAGES, call
from .libraries.arguments import check_config, check_manifest, check_training_arguments
from .libraries.building import (
    build,
    build_for_loading,
    depth_site_of,
    fit_identity,
    inner_sites_of,
    load_model,
    load_weights,
    sites_of,
    with_classes,
)
from .libraries.foreign_keys import by_filter, by_order, keys_without_order
from .libraries.identity import Identity
from .libraries.limits import limited_to
from .libraries.registry import LIBRARIES, NamedModel, library, parse_model, resolve_architecture
from .libraries.resizing import at_image_size
from .libraries.transformers_config import (
    TransformersConfig,
    classes_of,
    is_transformers_config,
    made_up_labels,
    read_transformers_config,
    refuse_adapter,
    with_dtype,
    with_labels,
)
from .libraries.transformers_library import TransformersLibrary, from_folder, refuse_unlisted
from .modes import modes_kept, run_in_eval
from .preprocessing import Preprocessing, of_images
from .preprocessing_document import known_preprocessing, preprocessing_document
from .preprocessor_file import PREPROCESSOR_FILE
from .recognition.catalogue import catalogue, known_traits
from .recognition.identification import Identification, Match, identify
from .recognition.parts import main_parts
from .recognition.twins import differences
from .resting import has_resting_parameters
from .sample_preprocessing import SamplePreprocessing
from .shared_weights import load_saved_state, saved_state
from .sites.depth import find_depth_site
from .sites.heads import (
    ACTIVATION,
    BLOCK,
    ENCODER_LAYER,
    INNER,
    NORM,
    TOKENS,
    DepthSite,
    InnerSite,
    Site,
    sites_document,
)
from .sites.inner import InnerSites
from .sites.search import find_sites
from .sites.tracing import meta_twin, run_twin
from .sites.transformers_heads import (
    CHOICE,
    IMAGE,
    LABELLED,
    PIPELINES,
    QUESTION,
    Head,
    default_head,
    head_of_class,
    outputs_in_words,
)
from .sites.transformers_sites import find_transformers_sites, is_of_transformers
from .sound_preprocessing import SoundPreprocessing
from .text_preprocessing import TextPreprocessing
from .transformers_examples import example_of, graph_inputs_of, takes_images

__all__ = [
    "ACTIVATION",
    "BATCH",
    "BLOCK",
    "CHOICE",
    "ENCODER_LAYER",
    "IMAGE",
    "IMAGES",
    "INNER",
    "LABELLED",
    "LIBRARIES",
    "NORM",
    "PIPELINES",
    "PREPROCESSOR_FILE",
    "QUESTION",
    "TOKENS",
    "DepthSite",
    "GraphInputs",
    "Head",
    "Identification",
    "Identity",
    "InnerSite",
    "InnerSites",
    "Match",
    "NamedModel",
    "Preprocessing",
    "SamplePreprocessing",
    "Site",
    "Sizes",
    "SoundPreprocessing",
    "TextPreprocessing",
    "TransformersConfig",
    "TransformersLibrary",
    "at_image_size",
    "build",
    "build_for_loading",
    "by_filter",
    "by_order",
    "call",
    "catalogue",
    "check_config",
    "check_manifest",
    "check_training_arguments",
    "classes_of",
    "default_head",
    "depth_site_of",
    "differences",
    "example_of",
    "find_depth_site",
    "find_sites",
    "find_transformers_sites",
    "fit_identity",
    "from_folder",
    "graph_inputs_of",
    "has_resting_parameters",
    "head_deferred",
    "head_of_class",
    "identify",
    "image_inputs",
    "inner_sites_of",
    "is_of_transformers",
    "is_transformers_config",
    "keys_without_order",
    "known_preprocessing",
    "known_traits",
    "library",
    "limited_to",
    "load_model",
    "load_saved_state",
    "load_weights",
    "made_up_labels",
    "main_parts",
    "meta_twin",
    "modes_kept",
    "of_images",
    "outputs_in_words",
    "parse_model",
    "preprocessing_document",
    "read_transformers_config",
    "refuse_adapter",
    "refuse_unlisted",
    "resolve_architecture",
    "run_in_eval",
    "run_twin",
    "saved_state",
    "sites_document",
    "sites_of",
    "takes_images",
    "with_classes",
    "with_dtype",
    "with_labels",
]
