"""Faust's connections to Kafka are made as all others are."""

import ssl

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from tollgate.log.kafka_security import Security
from tollgate.processors.transports.kafka import credentials
from tollgate.secret import Secret

USER = {"username": "u", "password": Secret("hush")}


@pytest.mark.parametrize(
    "security",
    [
        Security(),
        Security(protocol="SSL"),
        Security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", **USER),
        Security(protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-256", **USER),
        Security(protocol="SASL_SSL", mechanism="SCRAM-SHA-512", **USER),
    ],
    ids=lambda security: f"{security.protocol} {security.mechanism if security.sasl else ''}",
)
def test_faust_gives_its_clients_what_the_log_gives_its_own(security):
    faust, ours = dict(credentials_to_aiokafka_auth(credentials(security))), security.options()
    contexts = faust.pop("ssl_context", None), ours.pop("ssl_context", None)

    assert faust == ours
    assert [isinstance(context, ssl.SSLContext) for context in contexts] == [security.tls] * 2
