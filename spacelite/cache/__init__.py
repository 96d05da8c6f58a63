"""Hidden states on disk. In: a data set and a backbone. Out: a cache file, open for reading."""
