"""What can go wrong, and whether another try can help.

A refusal of a request is an event (`Ended`, rejected); these are accidents and misuse.

    TollgateError
    ├── ConfigError           gateway.yaml, pricing.yaml, topics.yaml or the environment: exit code 3
    ├── UsageError            a command was given words it cannot take: exit code 2
    ├── LogError              the log
    │   ├── LogLocked         another process holds the embedded log
    │   ├── LogUnavailable    no broker, full queue: try again later
    │   ├── OutOfRange        retention has removed the position asked for
    │   └── AppendUnknown     an append neither succeeded nor failed for certain: the process must restart
    ├── Fenced                another process has taken over what this one was writing: stop
    ├── Unreadable            an event that cannot be decoded: names its type, topic and position
    ├── Refusal               a request refused before it was accepted, in the client's dialect
    └── ProviderError         a provider call that failed: its class decides on fallback
"""

from collections.abc import Mapping


class TollgateError(Exception):
    """Any error of this project; its text is fit to be shown to a person."""


class ConfigError(TollgateError):
    """Names the file, the key or variable, and the way out; of several problems, each on a line of its own."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Mistakes:
    """What several checks find, to be told at once: `with mistakes:` around each of them, then `tell()`."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __enter__(self) -> None:
        """Run one check, which may raise `ConfigError`."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self.problems += error.problems
        return True

    def tell(self) -> None:
        """Raise one `ConfigError` with all of them, each once, if there are any."""
        if self.problems:
            raise ConfigError(*dict.fromkeys(self.problems))


class UsageError(TollgateError):
    """A command or call was used wrongly."""


class LogError(TollgateError):
    """The log could not do what was asked."""


class LogLocked(LogError):
    """Another process holds this embedded log; the text names its pid where known."""


class LogUnavailable(LogError):
    """Nothing was appended; the same append may succeed later."""


class OutOfRange(LogError):
    """The position is older than what retention has kept."""


class AppendUnknown(LogError):
    """The append may or may not be in the log. Only a restart, which reads the log, can tell."""


class Fenced(TollgateError):
    """Another process has taken over what this one was writing. Nothing was written; this one must stop."""


class Unreadable(TollgateError):
    """Bytes on a topic that are not an event this version knows."""


class Refusal(TollgateError):
    """A request that is turned away.

    `status` is the HTTP status, `type` and `code` are OpenAI's words for it, `param` the field at fault.
    `details` are further members of the error object, such as which limit was reached and when it resets.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.param = param
        self.headers = dict(headers or {})
        self.details = dict(details or {})


class ProviderError(TollgateError):
    """A provider call failed.

    `error_class` is one of `ERROR_CLASSES`; `status` is the provider's HTTP status, None when there was no answer.
    `retry_after_s` is the provider's own wish. `message` never holds a credential.
    """

    def __init__(
        self,
        error_class: str,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.retry_after_s = retry_after_s


ERROR_CLASSES = {
    "rate_limit": "the provider asks to slow down",
    "quota": "the operator's account with the provider is out of money",
    "auth": "the operator's credentials were refused",
    "context_window": "the request is longer than the model can take",
    "content_filter": "the provider refused the content",
    "timeout": "no answer in time",
    "overloaded": "the provider has no capacity",
    "server_error": "the provider failed",
    "connection": "the provider could not be reached",
    "cut": "the connection ended in the middle of an answer",
    "not_found": "the provider does not know the model",
    "bad_request": "the provider says that the request is wrong",
}


def why(error: Exception) -> str:
    """What the system says of it, without the number and the path: messages name their place themselves."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
