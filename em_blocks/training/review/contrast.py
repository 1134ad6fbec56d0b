"""Whether all raw data of a training have the contrast that its setup is for."""

from __future__ import annotations

from collections.abc import Iterable

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.volumes.contrast import contrast_text, equalized_as


def check_contrast(config: SetupConfig) -> None:
    """Raise `ConfigError` if raw of a source was not equalised as the setup states."""
    if config.equalized is None:
        return
    training = config.to_train()
    for source in (*training.sources, *training.validation):
        if source.raw is None or (found := equalized_as(source.raw)) == config.equalized:
            continue
        raise ConfigError(
            f"raw of a source is {source.raw}, which {contrast_text(found)}, but the setup "
            f"{config.name!r} is for raw that {contrast_text(config.equalized)} (key `equalized`). The "
            "network would learn from another contrast than it predicts. Equalise raw with these "
            "settings (`em-blocks equalize`), or correct the key, which may be left out."
        )


def shared_contrast(raws: Iterable[str]) -> dict | None:
    """Return how all of some volumes were equalised; None if they differ or say nothing."""
    found = [equalized_as(raw) for raw in raws]
    return found[0] if found and all(one == found[0] for one in found) else None
