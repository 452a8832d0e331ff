"""The OpenAPI document against a running server: its examples run, its answers are all there."""

import subprocess
import sys

import httpx
import pytest
import yaml

from planner.service.api.examples import MINUTES, SPEC
from tests.planner.service.served import served

NAMES = {"{name}": "demo", "{token_name}": "ci", "{pool}": "decode:cpu-slot:tp1"}
FIRST = ("PUT /v1/deployments/{name}", "PUT /v1/deployments/{name}/fleet", "POST /v1/plans")
"""What the others build on."""
ANYWHERE = {"401", "403", "413", "415", "422", "429", "503"}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the spec that the examples are about, on a real socket; its admin's header."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    with (folder / "log").open("w") as log, served(folder, log=log) as (_, facts):
        yield facts["url"], f"Bearer {facts['token']}"


@pytest.fixture(scope="module")
def url(server):
    return server[0]


def examples(document):
    """Every example of a body: (method and path, its name, the body), in an order that works."""
    found = [
        (f"{method.upper()} {path}", name, example["value"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for media in operation.get("requestBody", {}).get("content", {}).values()
        for name, example in media.get("examples", {}).items()
    ]
    return sorted(found, key=lambda e: FIRST.index(e[0]) if e[0] in FIRST else len(FIRST))


def test_every_example_of_the_document_runs_as_it_stands(server):
    url, authorization = server
    headers = {"Prefer": "wait=100", "Authorization": authorization}
    with httpx.Client(base_url=url, timeout=120, headers=headers) as client:
        document = client.get("/openapi.json").json()
        # What is asked of the stored load needs some first.
        ordered = sorted(examples(document), key=lambda one: "observations" not in one[0])
        for number, (operation, name, body) in enumerate(ordered, start=1):
            method, path = operation.split()
            if "{plan_id}" in path:
                fresh = client.post("/v1/plans", json={"history": MINUTES[:-number]}).json()
                path = path.replace("{plan_id}", fresh["plan_id"])
            for name_in_path, known in NAMES.items():
                path = path.replace(name_in_path, known)
            answer = client.request(method, path, json=body)
            assert answer.status_code in (200, 201), f"{operation} {name}: {answer.text}"


def test_every_body_of_the_document_has_an_example(url):
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    bodies = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert {operation for operation, _, _ in examples(document)} == bodies


def test_every_refusal_in_the_document_is_a_problem(url):
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            refusals = {s: a for s, a in operation["responses"].items() if s >= "400"}
            assert {"401", "403", "413", "415", "422", "429", "503"} <= refusals.keys(), (
                method,
                path,
            )
            assert ("404" in refusals) >= ("{" in path), (method, path)
            for answer in refusals.values():
                assert list(answer["content"]) == ["application/problem+json"]
    assert document["components"]["schemas"]["Problem"]["required"]


def test_no_answer_is_undocumented_or_a_fault_of_the_server(server, tmp_path):
    """A bounded run; docs/api.md has the full one, of some 5,000 requests."""
    url, authorization = server
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--phases", "examples,fuzzing", "--max-examples", "2", "--no-color"),
            *("--generation-deterministic", "--checks", ",".join(CHECKS)),
            *("--header", f"Authorization: {authorization}"),
            *("--request-timeout", "60", "--max-time", "45"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "Tested: " in run.stdout
