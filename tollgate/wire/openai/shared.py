"""What Chat Completions and Responses say in the same way, whichever field it stands in."""

import hashlib

from tollgate.wire import Body, fields
from tollgate.wire.content import Audio, Format, Tier
from tollgate.wire.openai.words import TIERS
from tollgate.wire.scope import Losses

MAX_USER_CHARS = 64


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL (RFC 2397), None if it is none."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma or not head.endswith(";base64"):
        return None
    return head.removeprefix("data:").partition(";")[0], data


def read_audio(part: Body, where: str, losses: Losses) -> Audio:
    """The part `input_audio`."""
    audio, inside = fields.mapping(part, "input_audio", path=f"{where}.input_audio"), f"{where}.input_audio"
    losses.drop_others(audio, ("data", "format"), inside)
    return Audio(
        data=fields.required_text(audio, "data", inside),
        format=fields.required_text(audio, "format", inside),
        path=where,
    )


def read_schema(given: Body, where: str) -> Format:
    """The form of an answer, of the kind `json_schema`."""
    return Format(
        schema=fields.mapping(given, "schema", path=f"{where}.schema"),
        name=fields.text(given, "name", path=f"{where}.name"),
        description=fields.text(given, "description", path=f"{where}.description"),
        strict=fields.optional_boolean(given, "strict", path=f"{where}.strict"),
    )


def read_tier(body: Body, losses: Losses) -> Tier | None:
    word = fields.text(body, "service_tier")
    if word is not None and word not in TIERS:
        losses.drop("service_tier")
    return TIERS.get(word or "")


def read_user(body: Body, losses: Losses) -> str | None:
    """`safety_identifier` is the newer name of `user`; of both the client's own word is kept."""
    user, identifier = fields.text(body, "user"), fields.text(body, "safety_identifier")
    if user is not None and identifier is not None:
        losses.drop("safety_identifier")
    return identifier if user is None else user


def write_user(user: str) -> str:
    """A name that is too long becomes its digest, which tells users apart just as well."""
    return user if len(user) <= MAX_USER_CHARS else hashlib.sha256(user.encode()).hexdigest()
