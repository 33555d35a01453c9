from .cache.caching import Cache
from .cache.decoded_images import estimate
from .checking.duplicates import Duplicates, duplicates
from .checking.examining import Examined, examine
from .checking.finding import TRAIN, find_splits
from .class_map import read_class_map, renamed
from .classes import are_numbers, check_classes, classes_said_by, in_timms_order, with_labels_of
from .counting import count_units
from .label_noise import with_label_noise, wrong_labels
from .loading.device_feed import several_sizes
from .loading.loader import EvaluationBatches, TrainingBatches
from .loading.samples import AnyTransform, Batch, Collate, Prepared, batches_by_size
from .loading.seen import check_drawn, over_processes, said_of_masks, said_of_traits
from .loading.transfer import Transfer
from .renumbering import in_order_of
from .sources.class_names import CLASS_NAMES, with_classes
from .sources.forms import (
    CHOICES,
    CORPUS,
    LABELLED,
    MASKED,
    QUESTIONS,
    SOUNDS,
    SOURCES,
    TEXTS,
    WORDS,
    Setting,
    described,
    form_of,
    listed,
    samples_of,
    spelled,
    taking,
)
from .sources.image_decoding import Decoding, decode
from .sources.masks import holds_masks
from .sources.opening import open_source
from .sources.records.blocks import Blocks, Frame, blocks_of
from .sources.records.questions import Answers, Asked
from .sources.records.words import with_common_names, with_names
from .sources.source import (
    Data,
    ImageSource,
    Source,
    check_same_classes,
    check_several_classes,
    listing,
    sample_within,
)
from .subsets import LabelledSubset, Subset, hold_out, hold_out_masks, limit_classes, limit_samples
from .transforms.augmentation import Augmentation, StagedTransform, evaluation_transform, training_transform
from .transforms.batched import check_batched
from .transforms.choices import ChoiceTransform
from .transforms.joint import joint_evaluation_transform, joint_training_transform
from .transforms.masks import IGNORED
from .transforms.mixing import BatchMixer
from .transforms.questions import QuestionTransform
from .transforms.sounds import LabelledSoundTransform, sound_padding
from .transforms.texts import LabelledTextTransform, batches_padded, text_padding
from .transforms.tokens import MaskedTokenTransform, NextTokenTransform
from .transforms.words import WordTransform

__all__ = [
    "CHOICES",
    "CLASS_NAMES",
    "CORPUS",
    "IGNORED",
    "LABELLED",
    "MASKED",
    "QUESTIONS",
    "SOUNDS",
    "SOURCES",
    "TEXTS",
    "TRAIN",
    "WORDS",
    "Answers",
    "AnyTransform",
    "Asked",
    "Augmentation",
    "Batch",
    "BatchMixer",
    "Blocks",
    "Cache",
    "ChoiceTransform",
    "Collate",
    "Data",
    "Decoding",
    "Duplicates",
    "EvaluationBatches",
    "Examined",
    "Frame",
    "ImageSource",
    "LabelledSoundTransform",
    "LabelledSubset",
    "LabelledTextTransform",
    "MaskedTokenTransform",
    "NextTokenTransform",
    "Prepared",
    "QuestionTransform",
    "Setting",
    "Source",
    "StagedTransform",
    "Subset",
    "TrainingBatches",
    "Transfer",
    "WordTransform",
    "are_numbers",
    "batches_by_size",
    "batches_padded",
    "blocks_of",
    "check_batched",
    "check_classes",
    "check_drawn",
    "check_same_classes",
    "check_several_classes",
    "classes_said_by",
    "count_units",
    "decode",
    "described",
    "duplicates",
    "estimate",
    "evaluation_transform",
    "examine",
    "find_splits",
    "form_of",
    "hold_out",
    "hold_out_masks",
    "holds_masks",
    "in_order_of",
    "in_timms_order",
    "joint_evaluation_transform",
    "joint_training_transform",
    "limit_classes",
    "limit_samples",
    "listed",
    "listing",
    "open_source",
    "over_processes",
    "read_class_map",
    "renamed",
    "said_of_masks",
    "said_of_traits",
    "sample_within",
    "samples_of",
    "several_sizes",
    "sound_padding",
    "spelled",
    "taking",
    "text_padding",
    "training_transform",
    "with_classes",
    "with_common_names",
    "with_label_noise",
    "with_labels_of",
    "with_names",
    "wrong_labels",
]
