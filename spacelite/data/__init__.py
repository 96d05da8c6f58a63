"""Texts and labels. In: a name, a path, or Python objects. Out: checked, numbered splits."""

from spacelite.data.inputs import read
from spacelite.data.known import KNOWN, KnownDataset
from spacelite.data.loading import load
from spacelite.data.splits import Split, TextDataset, stratified_sample
from spacelite.data.streams import TextRows, given_texts, open_lines, open_texts

__all__ = [
    "KNOWN",
    "KnownDataset",
    "Split",
    "TextDataset",
    "TextRows",
    "given_texts",
    "load",
    "open_lines",
    "open_texts",
    "read",
    "stratified_sample",
]
