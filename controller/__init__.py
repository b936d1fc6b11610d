"""Watches experiments and keeps their jobs alive; never imports torch."""
