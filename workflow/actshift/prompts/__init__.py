"""Prompt sets, chat templates, position rules."""
