"""Pipelines in code: what an author writes (`Pipeline`, `Gates`, `Metric`), and what runs it."""

from headrace.pipeline.author import Pipeline
from headrace.pipeline.gates import Gates, Metric

__all__ = ["Gates", "Metric", "Pipeline"]
