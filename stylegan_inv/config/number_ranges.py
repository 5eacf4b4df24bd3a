"""The range of every number of the configs, by the name of the argument.

Constructors check what depends on other arguments. What is here keeps a number that makes no sense from failing in the
middle of a command, or from doing nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.trust.allowed_names import LARGEST as LARGEST_SIZES
from stylegan_inv.utils.checks import LARGEST_NUMBER, LARGEST_SEED, real_number, whole_number


@dataclass(frozen=True)
class Range:
    """What a number may be.

    Attributes:
        least: Smallest allowed value; None for no bound.
        most: Largest allowed value; None for no bound.
        above: Bound that the value must exceed; None for no bound.
        whole: Whether only whole numbers are allowed.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    whole: bool = False

    def check(self, key: str, value: Any) -> None:
        """Checks a value.

        Raises:
            UserError: No number in this range.
        """
        if self.whole:
            least = None if self.least is None else int(self.least)
            whole_number(key, value, least, None if self.most is None else int(self.most))
        else:
            real_number(key, value, self.least, self.most, self.above)
        if value > (largest := LARGEST.get(argument_of(key), LARGEST_NUMBER)):
            raise UserError(f"{key}={value}: expected at most {largest:.10g}")


_COUNT, _COUNT_OR_NONE = Range(least=1, whole=True), Range(least=0, whole=True)
_POSITIVE, _NOT_NEGATIVE, _FRACTION = Range(above=0), Range(least=0), Range(least=0, most=1)
_BY_RANGE = (
    (
        _COUNT,
        "abort_after ada_images batch_size batch_sizes cell channel_base channel_max channels classes code "
        "content_width d_steps_per_g embedding_dim encoder_rank evaluation_factor every every_n_steps "
        "every_n_train_steps every_steps expected_images factors feature_index features frames "
        "from_resolution generated gpus grow_from hidden identity_groups images images_per_person "
        "img_channels in_channels inner input_size iterations loss_resolution loss_size mapping_layers measure_steps "
        "max_images mbstd_group_size n_jobs n_trials noise_steps num_features num_normals path_length_shrink "
        "patience people pool_size rank resamples resolution resolutions rounds samples scales segments shard_images "
        "size snapshots step_size steps strides test_size total_images total_steps train_size units val_batch_size "
        "val_people val_size version w_avg_samples w_dim w_steps width widths z_dim",
    ),
    (
        _COUNT_OR_NONE,
        "batch_norm_steps c_dim count distill_steps editor_first_step fade_images first_layer first_step "
        "grow_images kept levels mask_width num_workers path_length_every r1_every scale_steps "
        "style_map variants warmup_images warmup_steps weight_steps",
    ),
    (
        _POSITIVE,
        "compactness conv_clamp decay_images ema_images ema_rampup factor feature_gain gain mapping_lr_multiplier "
        "minutes temperature",
    ),
    (
        _NOT_NEGATIVE,
        "alignment blur code_penalty consistency_weight degradation delta detail disentanglement distance "
        "distance_threshold edge face feature_lr feature_penalty naturalness others parts sigma threshold weight_lr "
        "every_seconds factor_weight feature_weight final_weight initial_noise_factor loss_threshold lr lr_d lr_g "
        "margin mask_weight noise_floor noise_lr path_length_weight perceptual perceptual_reference pixel "
        "pixel_reference r1_gamma r2_gamma radii regularize_noise_weight save_every_seconds seconds variance w_lr "
        "warmup_lr weight_decay",
    ),
    (
        _FRACTION,
        "betas decay distortion distortion_probability end_factor fraction gamma horizontal_flip initial_p level "
        "lr_rampdown_length lr_rampup_length min_delta mixing_probability noise_ramp_length obstacles "
        "path_length_decay probability style_mixing synthetic_share target_obstacles val_fraction w_avg_decay",
    ),
    (Range(least=0, most=LARGEST_SEED, whole=True), "people_seed seed"),
    (Range(least=-10, most=10), "initial"),
)
#: Name of an argument -> its range.
RANGES = {name: found for found, names in _BY_RANGE for name in names.split()}
_BY_LARGEST = (
    (100, "feature_index first_layer levels scales style_map version"),
    (
        1000,
        "blur d_steps_per_g edge detail degradation factors evaluation_factor gain n_jobs sigma snapshots variants",
    ),
    (2048, "cell frames"),
    (
        4096,
        "from_resolution grow_from img_channels in_channels loss_size mask_width radii resolutions size strides widths",
    ),
    (1 << 16, "batch_sizes classes"),
    (86_400, "seconds"),
    (1_000_000, "c_dim compactness identity_groups kept n_trials noise_floor resamples segments"),
    (
        10_000_000,
        "count every_seconds measure_steps minutes noise_steps pool_size save_every_seconds shard_images w_steps steps",
    ),
    (
        1_000_000_000,
        "abort_after batch_norm_steps distill_steps editor_first_step every every_n_steps "
        "every_n_train_steps every_steps first_step images max_images path_length_every patience r1_every "
        "scale_steps total_steps warmup_steps weight_steps",
    ),
)
#: Name of an argument -> its largest value, which no use of it needs: larger ones fill the memory or end never. Numbers
#: of images that a training counts, and weights, have the bound of all numbers.
LARGEST = {**LARGEST_SIZES, **{name: most for most, names in _BY_LARGEST for name in names.split()}}
#: Keys whose last part means something else: none is allowed, a folder, whether each step is scored.
_OTHER = ("edit.samples", "images", "steps")


def argument_of(key: str) -> str:
    """Returns the last part of a dotted key that is no index: ``dataset.aspect.0`` -> ``aspect``."""
    return next((part for part in reversed(key.split(".")) if not part.isdecimal()), key)


def range_of(key: str) -> Range | None:
    """Returns the range of a number in a config; None for what is no number, or whose reader checks it.

    Args:
        key: Dotted key. The options of the Trainer have a check of their own.
    """
    return None if key in _OTHER or key.startswith("trainer.") else RANGES.get(argument_of(key))
