"""Models by their published sizes."""

from dataclasses import replace

from planner.domain.model import Model

LLAMA_70B = Model(
    name="llama",
    layers=80,
    kv_heads=8,
    head_size=128,
    parameters=70_553_706_496,
    active_parameters=70_553_706_496,
    max_context_tokens=131_072,
    attention_heads=64,
)
LLAMA_8B = replace(
    LLAMA_70B,
    layers=32,
    parameters=8_030_261_248,
    active_parameters=8_030_261_248,
    attention_heads=32,
)
SCOUT = Model(
    name="scout",
    layers=48,
    kv_heads=8,
    head_size=128,
    parameters=109_000_000_000,
    active_parameters=17_000_000_000,
    max_context_tokens=10_485_760,
    attention_heads=40,
)
"""Llama 4 Scout by its model card: 109B parameters, 17B active, 10M tokens of context."""
