"""What the gate looks at in a request's body; the body itself is passed on as it came."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from serving.gate.refusals import Refusal

NOT_FROM_CLIENTS = (
    "kv_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
)
"""Fields by which the router steers KV transfers: from a client they could read other people's
prompts (vLLM #51505)."""

LARGEST_COUNT = 10_000_000
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})


class Kind(StrEnum):
    """Which of the two generating calls."""

    CHAT = "chat"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as far as decisions need it; no text is kept.

    Parameters
    ----------
    model : str or None
        None: the server's own.
    stream : bool
    characters : int
        Length of the prompt's text.
    prompt_tokens : int or None
        Where the prompt came as token ids: how many. None: text.
    max_tokens : int or None
        The longest answer that the client wants; None: the server decides.
    answers : int
        Answers to the same prompt (`n`).
    decode_computes : bool
        Decode computes the prompt itself, whatever prefill hands over: several answers, or
        log-probabilities of the prompt (vLLM 0.32 with NIXL, measured).
    """

    kind: Kind
    model: str | None
    stream: bool
    characters: int
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    answers: int = 1
    decode_computes: bool = False


def read_request(body: bytes, kind: Kind, *, disaggregated: bool) -> Asked | Refusal:
    """What a body asks for, or why it is not passed on.

    Parameters
    ----------
    disaggregated : bool
        Whether prompts are computed by other workers than answers: then several prompts in one
        request would mix up their KV caches (vLLM #51505).
    """
    try:
        data = _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except _RepeatedKeyError as error:
        return _bad(
            f"the key {error.key!r} stands twice in one object: servers differ in which they take; "
            "send it once",
            reason="repeated_key",
        )
    except (ValueError, RecursionError) as error:
        return _bad(f"the body is no JSON: {error}", reason="invalid_json")
    if not isinstance(data, dict):
        return _bad("the body must be a JSON object", reason="invalid_json")
    return _forbidden(data) or _read(data, kind, disaggregated=disaggregated)


class _RepeatedKeyError(Exception):
    """An object has a key twice: whoever reads it may take either value."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key[:100]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:  # once through: a body may hold a million keys
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
"""Made once: `json.loads` with a hook makes one a body."""


def _forbidden(data: Mapping[str, object]) -> Refusal | None:
    for name in NOT_FROM_CLIENTS:
        if name in data:
            return _bad(
                f"`{name}` is set by the router and is not accepted from clients: leave it out",
                param=name,
                reason="kv_transfer_params",
            )
    extra = data.get("vllm_xargs")  # vLLM merges these with its own arguments
    if isinstance(extra, dict) and any(name in extra for name in NOT_FROM_CLIENTS):
        return _bad(
            "`vllm_xargs` holds KV transfer parameters, which the router sets: leave them out",
            param="vllm_xargs",
            reason="kv_transfer_params",
        )
    return None


def _read(data: Mapping[str, object], kind: Kind, *, disaggregated: bool) -> Asked | Refusal:
    model, answers = data.get("model"), _count(data.get("n"))
    if model is not None and not isinstance(model, str):
        return _bad("`model` must be a string", param="model")
    characters, tokens = 0, None
    if kind is Kind.CHAT:
        characters = _characters_of(data.get("messages"))
    else:
        prompt = data.get("prompt")
        own, embedded = _prompts_in(prompt), _prompts_in(data.get("prompt_embeds"))
        name, count = "prompt" if own > 1 else "prompt_embeds", own + embedded
        if disaggregated and count > 1:
            return _bad(
                f"the request holds {count} prompts: here prompts and answers are "
                "computed by different workers, and KV caches of several prompts in one request "
                "would be mixed up; send one request for each",
                param=name,
                reason="multi_prompt",
            )
        characters, tokens = _length_of(prompt)
    longest = data.get("max_completion_tokens")
    if longest is None:
        longest = data.get("max_tokens")
    of_prompt = data.get("prompt_logprobs") is not None
    of_prompt |= _is_true(data.get("echo")) and data.get("logprobs") is not None
    several = answers is not None and answers > 1
    return Asked(
        kind=kind,
        model=model,
        stream=_is_true(data.get("stream")),
        characters=characters,
        prompt_tokens=tokens,
        max_tokens=_count(longest),
        answers=answers or 1,
        decode_computes=several or of_prompt,
    )


def _count(value: object) -> int | None:
    """A count as vLLM takes it, text and 16.0 too; None where the upstream is left to judge."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if len(value) < 20 and value.isascii() and value.isdigit() else None
    if not isinstance(value, (int, float)) or not 0 < value <= LARGEST_COUNT:
        return None
    return int(value) if value == int(value) else None


def _is_true(value: object) -> bool:
    """Whether vLLM takes it for true: its fields take more than JSON's own."""
    if isinstance(value, str):
        return value.lower() in _TRUE
    return value is True or (isinstance(value, (int, float)) and value == 1)


def _prompts_in(prompt: object) -> int:
    """Prompts in the field: a list of numbers is one prompt, given as token ids.

    What begins with neither text nor numbers is no prompt; counted are those that may be in it.
    """
    if not isinstance(prompt, list) or not prompt:
        return 1 if prompt else 0
    if isinstance(prompt[0], (str, list)):
        return len(prompt)
    return max(1, sum(1 for part in prompt if not isinstance(part, (int, float))))


def _length_of(prompt: object) -> tuple[int, int | None]:
    """(characters, tokens) of one or several prompts; tokens where they are given as ids."""
    if isinstance(prompt, str):
        return len(prompt), None
    if not isinstance(prompt, list) or not prompt:
        return 0, None
    if isinstance(prompt[0], int):
        return 0, len(prompt)
    if isinstance(prompt[0], list):
        return 0, sum(len(part) for part in prompt if isinstance(part, list))
    return sum(len(part) for part in prompt if isinstance(part, str)), None


def _characters_of(messages: object) -> int:
    """Characters of all texts in chat messages; pictures and sounds count nothing."""
    total = 0
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            total += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            total += sum(len(text) for text in texts if isinstance(text, str))
    return total


def _bad(message: str, *, param: str | None = None, reason: str = "bad_request") -> Refusal:
    return Refusal(status=400, reason=reason, message=message, param=param)
