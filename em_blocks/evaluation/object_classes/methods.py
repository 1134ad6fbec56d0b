"""The methods that find clusters, as configs; how many objects each of them can take."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from em_blocks.config import StrictModel

Clusters = Annotated[int, Field(ge=2)]
Positive = Annotated[float, Field(gt=0)]
_MANY = "mini_batch_kmeans or leiden"


class KMeansOptions(StrictModel):
    """Clusters around means."""

    name: Literal["kmeans"]
    clusters: Clusters
    most: ClassVar[int] = 5_000_000
    instead: ClassVar[str] = "mini_batch_kmeans"
    costs: ClassVar[str] = "it passes over all objects some hundred times"


class MiniBatchOptions(StrictModel):
    """K-means that sees a random part of the objects at a time."""

    name: Literal["mini_batch_kmeans"]
    clusters: Clusters
    batch_size: int = Field(4096, ge=1, description="Objects of a step.")
    most: ClassVar[int] = 50_000_000
    instead: ClassVar[str] = "a table of a part of the objects"
    costs: ClassVar[str] = "the table is held in memory"


class SpectralOptions(StrictModel):
    """K-means in the eigenvectors of the graph of nearest neighbours."""

    name: Literal["spectral"]
    clusters: Clusters
    neighbours: int = Field(10, ge=1, description="Edges of every object in the graph.")
    most: ClassVar[int] = 20_000
    instead: ClassVar[str] = _MANY
    costs: ClassVar[str] = "eigenvectors of a graph of all objects take minutes there"


class AgglomerativeOptions(StrictModel):
    """The two nearest clusters are merged until enough are left."""

    name: Literal["agglomerative"]
    clusters: Clusters
    linkage: Literal["ward", "average", "complete", "single"] = "ward"
    most: ClassVar[int] = 20_000
    instead: ClassVar[str] = _MANY
    costs: ClassVar[str] = "all distances are held in memory, 8 bytes for each pair"


class DbscanOptions(StrictModel):
    """Dense regions; what lies in none is noise, cluster 0."""

    name: Literal["dbscan"]
    eps: Positive = Field(description="Distance of neighbours, in scaled features.")
    min_samples: int = Field(5, ge=1, description="Neighbours of an object in a dense region.")
    most: ClassVar[int] = 200_000
    instead: ClassVar[str] = _MANY
    costs: ClassVar[str] = "the neighbours of all objects are held in memory"


class HdbscanOptions(StrictModel):
    """Dense regions at any density; what lies in none is noise, cluster 0."""

    name: Literal["hdbscan"]
    min_cluster_size: int = Field(5, ge=2)
    min_samples: int | None = Field(None, ge=1, description="Default: min_cluster_size.")
    most: ClassVar[int] = 50_000
    instead: ClassVar[str] = "dbscan, " + _MANY
    costs: ClassVar[str] = "time grows with the square of the number of objects"


class AffinityOptions(StrictModel):
    """Objects choose an example among them; the number of clusters follows."""

    name: Literal["affinity_propagation"]
    damping: float = Field(0.5, ge=0.5, lt=1.0)
    preference: float | None = Field(
        None, description="The lower, the fewer clusters. Default: the median of similarities, which "
        "are negative squared distances."
    )
    most: ClassVar[int] = 5_000
    instead: ClassVar[str] = "hdbscan, " + _MANY
    costs: ClassVar[str] = "several matrices of all pairs are held in memory"


class LeidenOptions(StrictModel):
    """Communities of the graph of nearest neighbours, at several resolutions."""

    name: Literal["leiden"]
    neighbours: int = Field(15, ge=1, description="Edges of every object in the graph.")
    resolutions: tuple[Positive, ...] = Field(
        (0.1, 0.3, 1.0), min_length=1, description="The higher, the more clusters."
    )
    resolution: Positive | None = Field(
        None, description="The one of `resolutions` whose clusters are the result. Default: the one "
        "whose runs agree most."
    )
    runs: int = Field(3, ge=2, description="Runs with other seeds, which are compared by ARI.")
    most: ClassVar[int] = 5_000_000
    instead: ClassVar[str] = "mini_batch_kmeans"
    costs: ClassVar[str] = "the graph is held in memory"


Method = Annotated[
    KMeansOptions | MiniBatchOptions | SpectralOptions | AgglomerativeOptions | DbscanOptions
    | HdbscanOptions | AffinityOptions | LeidenOptions,
    Field(discriminator="name"),
]
