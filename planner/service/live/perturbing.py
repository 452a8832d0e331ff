"""Perturbing a live deployment as people ask for it."""

import os
import time
from pathlib import Path

from rich.console import Console

from planner.service.demo.signals import ending_on_signals
from profiler.files import read_profile
from profiler.interruption import run_until_asked_to_end
from profiler.live.perturb import Perturbation, PerturbPlan, Response
from profiler.measure.facts import API_KEY, read_engine_facts
from profiler.measure.requests import Sender
from profiler.measure.words import learn_words
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter


def perturb_server(path: Path, url: str, model: str | None, plan: PerturbPlan) -> list[Response]:
    """Add load of one kind at a time to a running server.

    Raises
    ------
    ProfileError, InputError, OperationError
    """
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    profile = read_profile(path)
    name = model or profile.model
    api_key = os.environ.get(API_KEY)
    read_engine_facts(url, name, api_key=api_key)

    async def run() -> list[Response]:
        client = LoadClient(url=url, model=name, api_key=api_key)
        sender = Sender(client=client, patience_s=0.0, resumable=False)
        try:
            words = await learn_words(sender)
            return await Perturbation(
                sender=sender,
                writer=PromptWriter(words=words, seed=time.time_ns() % 2**31),
                profile=profile,
                plan=plan,
                say=say,
            ).run()
        finally:
            await client.close()

    with ending_on_signals():
        return run_until_asked_to_end(run())
