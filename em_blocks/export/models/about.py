"""What is said of a model that its files do not hold: who made it, from what, and what is allowed."""

from __future__ import annotations

from pydantic import Field

from em_blocks.config import StrictModel


class Author(StrictModel):
    """Who made a model."""

    name: str
    affiliation: str | None = None
    orcid: str | None = Field(None, description="For example 0000-0002-1825-0097.")
    github_user: str | None = None


class Citation(StrictModel):
    """What to cite: a text, and where it is found."""

    text: str
    doi: str | None = None
    url: str | None = None


class TrainingDataset(StrictModel):
    """A volume that a model was trained on."""

    name: str
    license: str | None = Field(None, description="For example CC-BY-4.0.")
    url: str | None = None


class About(StrictModel):
    """About a model, for its card; a JSON file."""

    description: str | None = Field(None, description="One sentence. Default: made of the config.")
    authors: tuple[Author, ...] = ()
    license: str | None = Field(None, description="SPDX identifier, for example CC-BY-4.0.")
    cite: tuple[Citation, ...] = ()
    data: tuple[TrainingDataset, ...] = ()
    tags: tuple[str, ...] = ()
