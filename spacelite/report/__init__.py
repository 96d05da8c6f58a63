"""Runs -> tables that people read."""
