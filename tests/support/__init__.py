"""Shared by the tests: models, judges, samples, tools."""
