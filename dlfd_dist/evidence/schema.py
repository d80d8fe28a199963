"""The form of a certificate, as JSON Schema; docs/certificate.schema.json is this, published."""

from __future__ import annotations

import re
from typing import Any

from .chain import FORMAT, ORDER, VERSION
from .statement import STATEMENT

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FREE: Schema = {"type": "object"}
"""Settings, figures and packages, whose names this schema does not fix."""


def _pattern(text: str) -> Schema:
    return {"type": "string", "pattern": f"^{text}$"}


HEX: Schema = _pattern("[0-9a-f]{64}")
PLAIN: Schema = _pattern("sha256:[0-9a-f]{64}")
KEYED: Schema = _pattern("hmac-sha256:[0-9a-f]{64}")
DIGEST: Schema = _pattern("(hmac-)?sha256:[0-9a-f]{64}")
TIME: Schema = _pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


AS_OF: Schema = {"enum": ["run", "certification"]}
FLAG = _object(flag=_or_null(BOOLEAN), reason=STRING)
LINE = _object(
    pseudonym=KEYED,
    kind={"enum": ["identity", "image"]},
    status={"enum": ["matched", "outside_train"]},
)
NAMED_LINE = _object(**LINE["properties"], name=STRING, num_images=INTEGER)
COUNT: Schema = {"anyOf": [INTEGER, _pattern("(0|[0-9]+ to [0-9]+)")]}
"""A number of images; without names a band."""
LEAKS = _object(
    counts=FREE,
    pairs=COUNT,
    across_parts=COUNT,
    forget_retain=COUNT,
    lines_told=COUNT,
    similarity=NUMBER,
    digest=KEYED,
)
PART = _object(images=COUNT, rows=KEYED)

SECTIONS: dict[str, Schema] = {
    "issued": _object(version=STRING, names=BOOLEAN, signed_by=_or_null(PLAIN)),
    "run": _object(
        verb={"enum": ["unlearn", "train"]},
        method=_or_null(STRING),
        title=STRING,
        synthetic=BOOLEAN,
        signature=KEYED,
        world_size=INTEGER,
        device=STRING,
        job_id=_or_null(STRING),
        restarts=_or_null(INTEGER),
        selected_step=_or_null(INTEGER),
        selection=_or_null(STRING),
        test_read=_or_null(STRING),
        num_steps=_or_null(INTEGER),
        peak_memory_mb=_or_null(NUMBER),
    ),
    "request": _object(
        rows=KEYED,
        pseudonyms=KEYED,
        people=INTEGER,
        single_images=COUNT,
        outside_training=COUNT,
        lines=_array({"anyOf": [LINE, NAMED_LINE]}),
    ),
    "split": _object(data=KEYED, parts=_object(retain=PART, forget=PART, val=PART, test=PART)),
    "leak_audit": _object(
        found=_or_null(LEAKS),
        removed=BOOLEAN,
        duplicates=COUNT,
        leaks=COUNT,
        forget_kept_in_retain=COUNT,
        warning=STRING,
    ),
    "code": _object(
        as_of=AS_OF,
        changed=_or_null(BOOLEAN),
        version=STRING,
        revision=_or_null(STRING),
        diff_sha256=_or_null(HEX),
    ),
    "config": FREE,
    "environment": _object(
        as_of=AS_OF, changed=_or_null(BOOLEAN), python=STRING, platform=STRING, packages=FREE
    ),
    "checkpoints": _object(**{"in": _or_null(PLAIN), "reference": _or_null(PLAIN), "out": PLAIN}),
    "metrics": _object(
        figures=FREE,
        guards=_object(
            attack_floor=FLAG,
            attack_power=FLAG,
            over_forgetting=FLAG,
            one_seed=FLAG,
            left_as_is=FLAG,
            only_confidence=FLAG,
            alike=FLAG,
        ),  # fmt: skip
    ),
    "seeds": _object(
        run=INTEGER, forget=INTEGER, split=INTEGER, metrics=INTEGER, synthetic=INTEGER
    ),
    "times": _object(
        wall_seconds=NUMBER,
        device_seconds=NUMBER,
        started=_or_null(TIME),
        result_written=TIME,
        certified=TIME,
    ),
    "files": _array(_object(path=STRING, digest=DIGEST)),
    "statement": {"const": STATEMENT},
}

CERTIFICATE_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Certificate of an unlearning run, by dlfd-dist",
    **_object(
        format={"const": FORMAT},
        version={"const": VERSION},
        sections=_object(**{name: SECTIONS[name] for name in ORDER}),
        chain=_array(_object(section={"enum": list(ORDER)}, digest=HEX, link=HEX)),
        signature=_or_null(
            _object(
                algorithm={"const": "Ed25519"},
                public_key=HEX,
                fingerprint=PLAIN,
                signature=_pattern("[0-9a-f]{128}"),
            )
        ),
    ),
}

SALT_SCHEMA = _object(
    format={"const": "dlfd-certificate-salt"}, version={"const": 1}, salt=HEX, names=FREE
)

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def misfit(value: Any, schema: Schema, where: str = "") -> str | None:
    """Return in a few words what does not fit a schema; None: all does.

    Of JSON Schema this knows what stands above. A field that the schema does not have is a misfit.
    """
    here = where or "the document"
    if "anyOf" in schema:
        found = [misfit(value, one, where) for one in schema["anyOf"]]
        return None if None in found else found[0]
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        held = any(type(value) is type(one) and value == one for one in allowed)
        words = "in the words of this version" if isinstance(allowed[0], dict) else None
        return None if held else f"{here} is not {words or ' or '.join(map(str, allowed))}"
    kind = schema["type"]
    if not _is_a(value, kind):
        return f"{here} is no {kind}"
    if "pattern" in schema and not re.fullmatch(schema["pattern"].strip("^$"), value):
        return f"{here} is not of the form {schema['pattern']}"
    if "properties" in schema:
        return _misfit_of_fields(value, schema["properties"], where)
    items = enumerate(value) if "items" in schema else ()
    return _first(misfit(one, schema["items"], f"{where}[{i}]") for i, one in items)


def _is_a(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON; Python counts a bool as an integer, JSON does not."""
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _misfit_of_fields(value: dict[str, Any], fields: dict[str, Schema], where: str) -> str | None:
    prefix = f"{where}." if where else ""
    if extra := sorted(value.keys() - fields.keys()):
        return f"the field {prefix}{extra[0]} is not known"
    if missing := sorted(fields.keys() - value.keys()):
        return f"the field {prefix}{missing[0]} is missing"
    return _first(misfit(value[name], one, prefix + name) for name, one in fields.items())


def _first(found: Any) -> str | None:
    return next((one for one in found if one is not None), None)
