"""The table of paths on which a model is asked."""

from tollgate.ingress.routes import ROUTES, Route, Routes

NAMED = Route("/v9/models/{model}:answer", "openai", complete=lambda body, path: body | dict(path))
PLAIN = Route("/v9/answers", "anthropic", endpoint="/v9/models/{model}:answer")


def test_a_path_without_parameters_is_itself():
    assert Routes([NAMED, PLAIN]).find("/v9/answers") == (PLAIN, {})


def test_a_parameter_is_one_step_of_the_path():
    routes = Routes([NAMED, PLAIN])
    assert routes.find("/v9/models/large-2:answer") == (NAMED, {"model": "large-2"})
    for path in ("/v9/models/large-2", "/v9/models/a/b:answer", "/v9/models/:answer", "/v9/answers/"):
        assert routes.find(path) is None


def test_several_paths_may_be_one_endpoint_in_the_books():
    assert {NAMED.name, PLAIN.name} == {"/v9/models/{model}:answer"}


def test_no_path_is_there_twice():
    assert len({route.path for route in ROUTES}) == len(ROUTES)
