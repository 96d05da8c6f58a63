"""Hidden states on disk. In: a data set and a backbone. Out: a cache file: found, read."""

from spacelite.cache.spec import CacheSpec
from spacelite.lazy import exports

__all__ = [
    "DTYPES",
    "Cache",
    "CacheSpec",
    "CacheState",
    "CachedSplit",
    "Embedded",
    "StoredType",
    "backbone_settings",
    "embed",
    "find",
    "newest_complete",
    "remove",
    "state",
    "states",
    "verify",
]

__getattr__ = exports(
    __name__,
    {
        "DTYPES": "dtypes",
        "StoredType": "dtypes",
        "Cache": "store",
        "CachedSplit": "store",
        "Embedded": "embedding",
        "backbone_settings": "embedding",
        "embed": "embedding",
        "CacheState": "folder",
        "find": "folder",
        "newest_complete": "folder",
        "remove": "folder",
        "state": "folder",
        "states": "folder",
        "verify": "folder",
    },
)
