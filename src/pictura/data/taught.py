"""`taught`: a source with regions of each picture, and the vector that a CLIP gives each (ViLD, section 3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from pictura.data.region_store import RegionStore
from pictura.data.source import Example, Source, SourceConfig
from pictura.data.wrapper import Changed


@dataclass(frozen=True, kw_only=True)
class TaughtConfig(SourceConfig):
    """The examples of `of`, with `regions` and `region_vectors` from the folder `store`: `pictura teach` writes it."""

    kind: ClassVar[str] = "taught"

    of: SourceConfig
    store: Path

    def build(self) -> "Taught":
        """Open the source and the store."""
        return Taught(self.of.build(), RegionStore(self.store))


class Taught(Changed):
    """ValueError where the store is not whole, or was written for other data."""

    def __init__(self, source: Source, store: RegionStore) -> None:
        if len(store) != len(source):
            raise ValueError(f"{store.folder}: has regions of {len(store):,} examples; the data has {len(source):,}")
        if len(store.missing):
            raise ValueError(
                f"{store.folder}: regions of {len(store.missing):,} of {len(store):,} examples are missing; go on with "
                "`pictura teach`"
            )
        super().__init__(source, "regions", "region_vectors")
        self.store = store

    def __getitem__(self, index: int) -> Example:
        example = cast(dict[str, Any], self.source[index])
        self.store.check(index, example["key"])
        regions = self.store[index]
        return cast(Example, example | {"regions": regions.boxes, "region_vectors": regions.vectors})
