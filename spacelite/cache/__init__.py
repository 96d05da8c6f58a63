"""Hidden states on disk. In: a data set and a backbone. Out: a cache file, open for reading."""

from typing import TYPE_CHECKING

from spacelite.cache.spec import CacheSpec
from spacelite.lazy import exports

if TYPE_CHECKING:
    from spacelite.cache.dtypes import DTYPES, StoredType, stored_type
    from spacelite.cache.duplicates import Duplicates
    from spacelite.cache.embedding import Embedded, backbone_settings, embed
    from spacelite.cache.folder import (
        CacheState,
        find,
        newest_complete,
        remove,
        state,
        states,
        verify,
    )
    from spacelite.cache.rounding import Rounded
    from spacelite.cache.speed import Speed
    from spacelite.cache.split import CachedSplit, spans
    from spacelite.cache.store import Cache, embedding_seconds
    from spacelite.cache.text_store import remove_store, stores
    from spacelite.cache.unknown import UnknownTokens

__all__ = [
    "DTYPES",
    "Cache",
    "CacheSpec",
    "CacheState",
    "CachedSplit",
    "Duplicates",
    "Embedded",
    "Rounded",
    "Speed",
    "StoredType",
    "UnknownTokens",
    "backbone_settings",
    "embed",
    "embedding_seconds",
    "find",
    "newest_complete",
    "remove",
    "remove_store",
    "spans",
    "state",
    "states",
    "stored_type",
    "stores",
    "verify",
]

_MODULES = {
    "dtypes": ("DTYPES", "StoredType", "stored_type"),
    "duplicates": ("Duplicates",),
    "embedding": ("Embedded", "backbone_settings", "embed"),
    "folder": (
        "CacheState", "find", "newest_complete", "remove", "state", "states", "verify",
    ),
    "rounding": ("Rounded",),
    "speed": ("Speed",),
    "split": ("CachedSplit", "spans"),
    "store": ("Cache", "embedding_seconds"),
    "text_store": ("remove_store", "stores"),
    "unknown": ("UnknownTokens",),
}  # fmt: skip

__getattr__ = exports(
    __name__, {name: module for module, names in _MODULES.items() for name in names}
)
