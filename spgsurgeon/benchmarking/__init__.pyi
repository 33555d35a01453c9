from .arms import GRAFTED, PLAIN, TIMM, TRAINER, Arm, own_arm, says_what_does_not_fit, settle_arms, timm_arm
from .blocks import Blocks, processor_ratio, rate, steps_that_last, throughput_ratio, time_blocks
from .loader import time_loader
from .noise import with_likely_targets
from .profile import measure
from .subject import Subject, settle_subject, unused_without_data
from .trainer_steps import trainer_arm

__all__ = [
    "GRAFTED",
    "PLAIN",
    "TIMM",
    "TRAINER",
    "Arm",
    "Blocks",
    "Subject",
    "measure",
    "own_arm",
    "processor_ratio",
    "rate",
    "says_what_does_not_fit",
    "settle_arms",
    "settle_subject",
    "steps_that_last",
    "throughput_ratio",
    "time_blocks",
    "time_loader",
    "timm_arm",
    "trainer_arm",
    "unused_without_data",
    "with_likely_targets",
]
