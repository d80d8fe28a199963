"""The form of a certificate, as JSON Schema; docs/certificate.schema.json is this, published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.exceptions import best_match

from .chain import FORMAT, ORDER, VERSION
from .statement import STATEMENT

Schema = dict[str, Any]
MESSAGE = 200
"""Characters of what is wrong that are shown."""

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


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_text(
    _validator: Any, pattern: str, value: Any, _schema: Schema
) -> Iterator[ValidationError]:
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError(f"{value!r} is not of the form {pattern}")


STRICT: Any = validators.extend(
    Draft202012Validator,
    {"pattern": _whole_text},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
"""JSON Schema in which 1.0 is no integer, and a pattern is of the whole text: the `$` of Python
also matches before a line break at the end."""


def misfit(value: Any, schema: Schema) -> str | None:
    """Return in a few words what does not fit a schema; None: all does."""
    error = best_match(STRICT(schema).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message[:MESSAGE]}"
