"""Copies and near copies: what a document's words, pictures and sounds are told apart by, and what is done about it."""
