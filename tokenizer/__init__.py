"""Signal <-> codes <-> ids. Knows arrays and strings; knows no files of data, documents or shards."""
