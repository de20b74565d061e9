"""Every route by its own schema, in requests that keep to it and requests that do not: schemathesis makes them.

The app publishes no schema; it is made from the app object here. Forms are not in it, since their routes read them by
hand, so their fields are added.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from prefloop.app.access import ACCESS

from .conftest import pairs, site_with
from .test_app_votes import REVIEW

schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

EXAMPLES = int(os.environ.get("PREFLOOP_SCHEMA", "4"))
"""Requests of either sort to each route."""
FORMS = {
    "/enter": ("code",),
    "/people/invite": ("name", "role"),
    "/people/deactivate": ("annotator_id",),
    "/guidelines": ("text",),
    "/disagreements/settle": ("item_id", "answer", "kind", "note"),
    "/disagreements/reopen": ("number",),
    "/gate/{sha256}": ("word", "why", "seen"),
    "/ledger/rollback": ("why", "last_switch"),
}
KNOWN = {
    "role": ["annotator", "reviewer", "owner"],
    "answer": ["a clearly", "tie", "hack", "unsure"],
    "number": ["1"],
    "word": ["approve", "hold"],
}


def schema_of(site):
    """The app's own, with the fields of forms; ids are such as there are, or anything."""
    known = {**KNOWN, "annotator_id": [each.annotator_id for each in site.people.values()]}
    known["item_id"] = [row.split("'")[1] for row in site.rows() if row.startswith('INSERT INTO "items"')]
    raw = site.app.app.app.openapi()
    for path, fields in FORMS.items():
        texts = {name: {"anyOf": [{"enum": known.get(name, ["x"])}, {"type": "string"}]} for name in fields}
        form = {"type": "object", "properties": texts, "required": list(fields)}
        body = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}}
        raw["paths"][path]["post"]["requestBody"] = body
    return schemathesis.openapi.from_dict(raw)


def test_no_request_of_any_sort_makes_the_server_fail(tmp_path):
    limits = {"sign_ins_per_minute": 10**9, "requests_per_minute": 10**9}
    made = site_with(tmp_path, [*pairs(3), REVIEW], **limits)
    seen = Counter()
    with made.store:
        made.signed_in("annotator", "Ann").post("/task", json={})
        owner = made.signed_in("owner")
        operations = [each.ok() for each in schema_of(made).get_all_operations()]
        assert {(each.method.upper(), each.path) for each in operations} == set(ACCESS)
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        for operation in operations:
            for mode in modes:
                # A path takes any text; without a body there is nothing wrong to send.
                if mode is modes[1] and not operation.body:
                    continue

                @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
                @given(operation.as_strategy(generation_mode=mode))
                def send(case):
                    nonlocal owner
                    answer = owner.request(**sent(case))
                    assert answer.status_code < 500, case.as_curl_command()
                    assert "content-security-policy" in answer.headers
                    seen[answer.status_code] += 1
                    if case.path == "/leave" or answer.status_code == 401:
                        owner = made.signed_in("owner")

                send()
        assert owner.get("/people").status_code == 200
    assert {200, 303, 403, 404, 422} <= seen.keys()
    print(f"{seen.total()} requests to {len(operations)} routes: {dict(seen)}")


def sent(case):
    """What a case says, as the test's client takes it; texts that UTF-8 has not go as JSON escapes them."""
    given = case.as_transport_kwargs()
    wanted = {name: given[name] for name in ("method", "url", "params", "headers") if given.get(name) is not None}
    if "json" in given:
        return {**wanted, "content": json.dumps(given["json"]).encode()}
    data = given.get("data")
    return wanted if data is None else {**wanted, "content" if isinstance(data, str | bytes) else "data": data}
