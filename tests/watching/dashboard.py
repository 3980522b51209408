"""Reads a dashboard with the models that Grafana publishes of its schema, and says what is not in it.

The models take what they know and drop the rest, so what they write back has to be what was read; and
each value has to be of the type that its field has, which the models themselves do not look at.
"""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

wrong = []
seen = {"objects": 0, "values": 0}


def check_type(value, wanted, names, where):
    """Tells where a value is not of the annotated type."""
    if isinstance(wanted, str):
        wanted = eval(wanted, names)
    if isinstance(wanted, typing.ForwardRef):
        wanted = eval(wanted.__forward_arg__, names)
    origin = typing.get_origin(wanted)
    if origin is typing.Union:
        kinds = typing.get_args(wanted)
        if value is None and type(None) in kinds:
            return
        before = len(wrong)
        for kind in kinds:
            if kind is type(None):
                continue
            del wrong[before:]
            check_type(value, kind, names, where)
            if len(wrong) == before:
                return
        return
    seen["values"] += 1
    if wanted in (typing.Any, object):
        return
    if origin is list:
        if not isinstance(value, list):
            wrong.append(f"{where}: {value!r} is no list")
            return
        for at, item in enumerate(value):
            check_type(item, typing.get_args(wanted)[0], names, f"{where}[{at}]")
    elif origin is dict:
        if not isinstance(value, dict):
            wrong.append(f"{where}: {value!r} is no map")
    elif origin is typing.Literal:
        if value not in typing.get_args(wanted):
            wrong.append(f"{where}: {value!r} is none of {typing.get_args(wanted)}")
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in [member.value for member in wanted]:
            wrong.append(f"{where}: {value!r} is none of {[m.value for m in wanted]}")
    elif wanted is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            wrong.append(f"{where}: {value!r} is no number")
    elif wanted is int:
        if isinstance(value, bool) or not isinstance(value, int):
            wrong.append(f"{where}: {value!r} is no whole number")
    elif isinstance(value, dict) and hasattr(wanted, "from_json"):
        # What the models leave as it was read.
        read = wanted.from_json(value)
        check_object(read, where)
        compare(value, json.loads(JSONEncoder().encode(read)), where)
    elif isinstance(wanted, type) and not isinstance(value, wanted):
        wrong.append(f"{where}: {value!r} is no {wanted.__name__}")


def check_object(value, where):
    """Looks at every field of a model, and of those in it."""
    if isinstance(value, list):
        for at, item in enumerate(value):
            check_object(item, f"{where}[{at}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_object(item, f"{where}.{key}")
    elif type(value).__module__.startswith("grafana_foundation_sdk."):
        if isinstance(value, enum.Enum):
            return
        seen["objects"] += 1
        if isinstance(value, runtime.UnknownDataquery):
            wrong.append(f"{where}: a query of a kind that is not known")
            return
        names = vars(sys.modules[type(value).__module__])
        for field, wanted in type(value).__annotations__.items():
            check_type(getattr(value, field), wanted, names, f"{where}.{field}")
            check_object(getattr(value, field), f"{where}.{field}")


def compare(read, written, where):
    """Tells what was read and is not written back, or otherwise. Defaults may be added."""
    if isinstance(read, dict) and isinstance(written, dict):
        for key in read:
            if key not in written:
                # Where nothing is, nothing need be written.
                if read[key] is not None:
                    wrong.append(f"{where}.{key}: no field of the schema")
            else:
                compare(read[key], written[key], f"{where}.{key}")
    elif isinstance(read, list) and isinstance(written, list) and len(read) == len(written):
        for at, (one, other) in enumerate(zip(read, written)):
            compare(one, other, f"{where}[{at}]")
    elif read != written:
        wrong.append(f"{where}: {read!r} is read as {written!r}")


plugins.register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    text = json.load(file)
model = dashboard.Dashboard.from_json(text)
known = runtime.Runtime().panelcfg_variants
for panel in text["panels"]:
    if panel["type"] != "row" and panel["type"] not in known:
        wrong.append(f"{panel['title']}: no panel of the kind {panel['type']}")
check_object(model, "dashboard")
compare(text, json.loads(JSONEncoder().encode(model)), "dashboard")
for line in wrong:
    print(line)
print(f"{seen['objects']} objects, {seen['values']} values, {len(wrong)} wrong")
sys.exit(1 if wrong else 0)
