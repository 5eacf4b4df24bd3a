"""Hydra: the config tree, command lines with a config, and objects built from config nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.config.composition import CONF_DIR as CONF_DIR
    from stylegan_inv.config.composition import chosen_option as chosen_option
    from stylegan_inv.config.composition import compose as compose
    from stylegan_inv.config.composition import plain as plain
    from stylegan_inv.config.cross_checks import check_fields as check_fields
    from stylegan_inv.config.cross_checks import check_logger as check_logger
    from stylegan_inv.config.hydra_command import PrepareFirst as PrepareFirst
    from stylegan_inv.config.hydra_command import entry_point as entry_point
    from stylegan_inv.config.hydra_command import program as program
    from stylegan_inv.config.hydra_command import same_command as same_command
    from stylegan_inv.config.instantiation import instantiate as instantiate
    from stylegan_inv.config.instantiation import instantiate_method as instantiate_method
    from stylegan_inv.config.instantiation import instantiate_part as instantiate_part
    from stylegan_inv.config.instantiation import start_of as start_of
    from stylegan_inv.config.loss_terms import build_loss_terms as build_loss_terms
    from stylegan_inv.config.overrides import check_groups as check_groups
    from stylegan_inv.config.overrides import explained as explained
    from stylegan_inv.config.trainer_options import check_endless_stream as check_endless_stream
    from stylegan_inv.config.trainer_options import check_manual_optimization as check_manual_optimization
    from stylegan_inv.config.typed_names import as_typed as as_typed

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "composition": ["CONF_DIR", "chosen_option", "compose", "plain"],
        "cross_checks": ["check_fields", "check_logger"],
        "hydra_command": ["PrepareFirst", "entry_point", "program", "same_command"],
        "instantiation": ["instantiate", "instantiate_method", "instantiate_part", "start_of"],
        "loss_terms": ["build_loss_terms"],
        "overrides": ["check_groups", "explained"],
        "trainer_options": ["check_endless_stream", "check_manual_optimization"],
        "typed_names": ["as_typed"],
    },
)
