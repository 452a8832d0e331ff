"""A real vLLM engine for machines without a GPU: how it is installed, and its tiny model.

For development, tests and the demo only; GPU installations use vLLM's own wheels (extra
`gpu`). The engine lives in a virtual environment of its own because its pins clash with ours.
`install.py` builds that environment, `calm.py` is a vLLM plugin installed into it, and
`tiny_model.py` and `smollm2.py` make models; these last three run inside it.
"""
