"""What a provider's failure means, whatever words it chose, and what the client is told of it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.fixtures import DIALECTS, REQUEST_ID
from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal
from tollgate.wire import failures, upstream_url
from tollgate.wire.exchange import WIRES
from tollgate.wire.failures import inband_error, provider_error, refusal_of


def openai(message="No.", type="invalid_request_error", code=None, param=None):
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def google(code, status, message="No.", **details):
    found = [{"@type": f"type.googleapis.com/google.rpc.{name}", **detail} for name, detail in details.items()]
    return {"error": {"code": code, "message": message, "status": status, "details": found}}


def violation(quota_id, **more):
    return {"violations": [{"quotaId": quota_id, **more}]}


def anthropic(type, message="No."):
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        # OpenAI and compatible
        (400, openai(), "bad_request"),
        (400, openai(code="context_length_exceeded"), "context_window"),
        (400, openai("This model's maximum context length is 8192 tokens."), "context_window"),
        (400, openai("The request exceeds the available context size", "exceed_context_size_error"), "context_window"),
        (400, openai(code="content_filter"), "content_filter"),
        (400, openai("… Azure OpenAI's content management policy.", code=None), "content_filter"),
        (400, openai(type="insufficient_quota", code="insufficient_quota"), "quota"),
        (401, openai("Incorrect API key provided: sk-fake", code="invalid_api_key"), "auth"),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."}, "auth"),
        (400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}], "auth"),
        (403, openai(code="model_not_found"), "not_found"),
        (403, openai(), "auth"),
        (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {}}}, "content_filter"),
        (404, openai(code="model_not_found"), "not_found"),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, "not_found"),
        (413, openai("Too large"), "bad_request"),
        (422, {"detail": [{"loc": ["body"], "msg": "extra fields"}]}, "bad_request"),
        (429, openai(type="tokens", code="rate_limit_exceeded"), "rate_limit"),
        (429, openai(type="insufficient_quota", code="insufficient_quota"), "quota"),
        (429, openai("maximum context length per minute"), "rate_limit"),
        (500, openai(type="server_error"), "server_error"),
        (502, b"<html>Bad gateway</html>", "server_error"),
        (503, openai("The engine is currently overloaded", "service_unavailable"), "overloaded"),
        (504, b"", "timeout"),
        (408, b"", "timeout"),
        (402, {"error": {"code": 402, "message": "Insufficient credits"}}, "quota"),
        (409, openai("Conflict"), "server_error"),
        (302, b"", "server_error"),
        # Anthropic
        (400, anthropic("invalid_request_error"), "bad_request"),
        (
            400,
            anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            "context_window",
        ),
        (
            400,
            anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit"),
            "context_window",
        ),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to access"), "quota"),
        (400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), "content_filter"),
        (401, anthropic("authentication_error"), "auth"),
        (402, anthropic("billing_error"), "quota"),
        (403, anthropic("permission_error"), "auth"),
        (404, anthropic("not_found_error", "model: x"), "not_found"),
        (413, anthropic("request_too_large"), "bad_request"),
        (429, anthropic("rate_limit_error"), "rate_limit"),
        (500, anthropic("api_error"), "server_error"),
        (500, anthropic("overloaded_error"), "overloaded"),
        (504, anthropic("timeout_error"), "timeout"),
        (529, anthropic("overloaded_error"), "overloaded"),
        # Google
        (400, google(400, "INVALID_ARGUMENT", "Invalid value at 'contents'"), "bad_request"),
        (400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), "auth"),
        (400, google(400, "INVALID_ARGUMENT", "API key expired.", ErrorInfo={"reason": "API_KEY_INVALID"}), "auth"),
        (400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), "auth"),
        (
            400,
            google(
                400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
            ),
            "context_window",
        ),
        (401, google(401, "UNAUTHENTICATED", ErrorInfo={"reason": "ACCESS_TOKEN_EXPIRED"}), "auth"),
        (403, google(403, "PERMISSION_DENIED", ErrorInfo={"reason": "SERVICE_DISABLED"}), "auth"),
        (403, google(403, "PERMISSION_DENIED", ErrorInfo={"reason": "BILLING_DISABLED"}), "quota"),
        (404, google(404, "NOT_FOUND", "models/x is not found for API version v1beta"), "not_found"),
        (429, google(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later."), "rate_limit"),
        (429, google(429, "RESOURCE_EXHAUSTED", QuotaFailure=violation("RequestsPerMinutePerProject")), "rate_limit"),
        (429, google(429, "RESOURCE_EXHAUSTED", QuotaFailure=violation("RequestsPerDayPerProject")), "quota"),
        (429, google(429, "RESOURCE_EXHAUSTED", QuotaFailure=violation("PerMinute", quotaValue="0")), "quota"),
        (429, google(429, "RESOURCE_EXHAUSTED", QuotaFailure={"violations": "x"}), "rate_limit"),
        (429, [google(429, "RESOURCE_EXHAUSTED")], "rate_limit"),
        (500, google(500, "INTERNAL"), "server_error"),
        (503, google(503, "UNAVAILABLE", "The model is overloaded."), "overloaded"),
        (504, google(504, "DEADLINE_EXCEEDED"), "timeout"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_failure_is_classified(dialect, status, body, error_class):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)

    error = WIRES[dialect].provider_error(status, {}, raw)

    assert (error.error_class, error.status) == (error_class, status)
    assert error.message


@pytest.mark.parametrize(
    ("payload", "error_class", "status"),
    [
        (anthropic("overloaded_error"), "overloaded", None),
        (anthropic("api_error"), "server_error", None),
        (openai(type="invalid_request_error"), "bad_request", None),
        (openai(type="rate_limit_error"), "rate_limit", None),
        ({"error": {"code": 429, "message": "slow down"}}, "rate_limit", 429),
        ({"error": {"code": "502", "message": "bad gateway"}}, "server_error", 502),
        (
            {"error": {"type": "invalid_request_error", "code": "tool_use_failed", "status_code": 400}},
            "bad_request",
            400,
        ),
        (google(429, "RESOURCE_EXHAUSTED"), "rate_limit", 429),
        (google(503, "UNAVAILABLE"), "overloaded", 503),
        ({"error": "something broke"}, "server_error", None),
        ({"error": True}, "server_error", None),
        (None, "server_error", None),
    ],
)
def test_a_failure_inside_an_answer_is_classified(payload, error_class, status):
    error = inband_error(payload)

    assert (error.error_class, error.status) == (error_class, status)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "detail", "status_code"]), inner
        )
    ),
    max_leaves=10,
)


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "date", "x"]), st.text()),
    body=st.binary() | json_values.map(lambda value: str(value).encode()) | json_values.map(orjson.dumps),
)
def test_nothing_that_a_provider_says_raises(status, headers, body):
    error = provider_error(status, headers, body)

    assert error.error_class in ERROR_CLASSES
    assert 100 <= refusal_of(error).status <= 599


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:00 GMT", "date": "Fri, 20 Nov 2026 10:00:30 GMT"}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, 0.0),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_read(headers, wait_s):
    assert provider_error(429, headers, b"").retry_after_s == wait_s


def test_the_wish_counts_only_where_waiting_helps():
    assert provider_error(400, {"retry-after": "7"}, b"").retry_after_s is None
    assert provider_error(529, {"retry-after": "7"}, b"").retry_after_s == 7


@pytest.mark.parametrize(
    "message",
    [
        "Incorrect API key provided: sk-proj-abc***xyz.",
        "The key sk-proj-abcXYZ123 has no access",
        "header was Bearer abcXYZ123",
        "?key=AIzaabcXYZ123456789",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_no_message_repeats_a_credential(message, status):
    error = provider_error(status, {}, orjson.dumps(openai(message)))

    assert "abc" not in error.message and "xyz" not in error.message.lower()


def test_a_message_is_cut_to_a_fit_length():
    assert len(provider_error(400, {}, orjson.dumps(openai("x" * 100_000))).message) == failures.MAX_MESSAGE_CHARS


# What the client is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_class", "status", "type", "code"),
    [
        ("bad_request", 400, "invalid_request_error", "bad_request"),
        ("context_window", 400, "invalid_request_error", "context_length_exceeded"),
        ("content_filter", 400, "invalid_request_error", "content_filter"),
        ("not_found", 404, "invalid_request_error", "model_not_found"),
        ("rate_limit", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("overloaded", 503, "server_error", "overloaded"),
        ("timeout", 504, "timeout", "timeout"),
        ("auth", 502, "server_error", "provider_auth"),
        ("quota", 502, "server_error", "provider_quota"),
        ("server_error", 502, "server_error", "provider_error"),
        ("connection", 502, "server_error", "provider_unreachable"),
        ("cut", 502, "server_error", "provider_cut"),
    ],
)
def test_every_class_has_its_answer(error_class, status, type, code):
    refusal = refusal_of(ProviderError(error_class, "in organisation org-secret"))

    assert (refusal.status, refusal.type, refusal.code) == (status, type, code)
    assert ("org-secret" in refusal.message) == (status == 400), (
        "only the client's own faults show the provider's words"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ProviderError("rate_limit", "x", status=429), "openai (gpt-5): the provider asks to slow down (HTTP 429)"),
        (ProviderError("auth", "x", status=401), "openai (gpt-5): the operator's credentials were refused (HTTP 401)"),
        (ProviderError("connection", "x"), "openai (gpt-5): the provider could not be reached"),
        (ProviderError("bad_request", "Bad stop", status=400), "openai (gpt-5): Bad stop"),
    ],
)
def test_the_client_is_told_whose_failure_it_was(error, message):
    assert refusal_of(error, provider="openai", model="gpt-5").message == message


def test_there_is_an_answer_to_every_class():
    for error_class in ERROR_CLASSES:
        assert refusal_of(ProviderError(error_class, "x"))


def test_a_fault_of_the_client_keeps_code_and_field():
    refusal = refusal_of(
        provider_error(400, {}, orjson.dumps(openai("Bad stop", code="unsupported_parameter", param="stop")))
    )

    assert (refusal.message, refusal.code, refusal.param) == ("Bad stop", "unsupported_parameter", "stop")


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (ProviderError("rate_limit", "x", retry_after_s=1.2), {"retry-after": "2"}),
        (ProviderError("overloaded", "x", retry_after_s=60), {"retry-after": "60"}),
        (ProviderError("rate_limit", "x", retry_after_s=3600), {"x-should-retry": "false"}),
        (ProviderError("rate_limit", "x"), {}),
        (ProviderError("server_error", "x", retry_after_s=5), {}),
    ],
)
def test_a_client_is_never_told_to_sleep_for_long(error, headers):
    assert refusal_of(error).headers == headers


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_refusal_has_a_body_in_every_dialect(dialect, error_class):
    body = orjson.loads(WIRES[dialect].error_body(refusal_of(ProviderError(error_class, "x")), REQUEST_ID))

    if dialect == "ollama":
        assert isinstance(body["error"], str) and body["type"]
        return
    assert body["error"]["message"] and (body["error"].get("type") or body["error"]["status"])


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("https://api.openai.com/v1", "/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.anthropic.com", "/v1/messages", "https://api.anthropic.com/v1/messages"),
        ("http://localhost:9999/v1", "/v1/messages", "http://localhost:9999/v1/messages"),
        ("http://localhost:9999/gpt-v1", "/v1/messages", "http://localhost:9999/gpt-v1/v1/messages"),
        ("/v1", "/chat/completions", "/v1/chat/completions"),
        (
            "https://x-aiplatform.googleapis.com/v1/projects/p/locations/x/publishers/google",
            "/models/m:generateContent",
            "https://x-aiplatform.googleapis.com/v1/projects/p/locations/x/publishers/google/models/m:generateContent",
        ),
        ("", "/v1/messages", "/v1/messages"),
    ],
)
def test_a_version_that_base_and_path_both_name_is_meant_once(base, path, url):
    assert upstream_url(base, path) == url


def test_google_says_how_long_to_wait_in_the_body():
    body = google(429, "RESOURCE_EXHAUSTED", RetryInfo={"retryDelay": "34.4s"})

    assert provider_error(429, {}, orjson.dumps(body)).retry_after_s == 34.4
    assert provider_error(429, {"retry-after": "2"}, orjson.dumps(body)).retry_after_s == 2
    assert provider_error(400, {}, orjson.dumps(body)).retry_after_s is None


@pytest.mark.parametrize("delay", ["", "s", "-1s", "1e9s", "nan", None, 5, {}, "9" * 400 + "s"])
def test_a_delay_that_cannot_be_read_is_none(delay):
    body = google(429, "RESOURCE_EXHAUSTED", RetryInfo={"retryDelay": delay})

    assert provider_error(429, {}, orjson.dumps(body)).retry_after_s is None


def test_google_names_the_reason_where_others_have_a_code():
    body = google(403, "PERMISSION_DENIED", ErrorInfo={"reason": "SERVICE_DISABLED"})

    error = provider_error(403, {}, orjson.dumps(body))

    assert (error.code, error.type) == ("SERVICE_DISABLED", "PERMISSION_DENIED")


def test_a_refusal_in_googles_shape_has_its_code_and_field_in_the_details():
    refusal = Refusal(429, "rate_limit_exceeded", "Slow down.", param="model", headers={"retry-after": "2"})

    error = orjson.loads(WIRES["gemini"].error_body(refusal, REQUEST_ID))["error"]

    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", "Slow down.")
    assert {one.pop("@type").rpartition(".")[2]: one for one in error["details"]} == {
        "ErrorInfo": {"reason": "RATE_LIMIT_EXCEEDED", "domain": "tollgate"},
        "BadRequest": {"fieldViolations": [{"field": "model", "description": "Slow down."}]},
        "RetryInfo": {"retryDelay": "2s"},
        "RequestInfo": {"requestId": REQUEST_ID},
    }
