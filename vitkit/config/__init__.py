"""What a person asked for, checked: files and overrides in, one :class:`RunConfig` out."""

from vitkit.config.idle import idle_settings
from vitkit.config.load import (
    Overrides,
    describe_keys,
    dump_yaml,
    given_keys,
    is_setting,
    load_config,
    override_words,
    split_arguments,
    suggest_key,
)
from vitkit.config.run import RunConfig, RunSection, to_plain

__all__ = [
    "Overrides",
    "RunConfig",
    "RunSection",
    "describe_keys",
    "dump_yaml",
    "given_keys",
    "idle_settings",
    "is_setting",
    "load_config",
    "override_words",
    "split_arguments",
    "suggest_key",
    "to_plain",
]
