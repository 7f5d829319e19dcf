"""Curation: rules over documents, each with what it measured. Nothing here reads or writes a dataset."""
