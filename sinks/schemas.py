"""The tables of the history: the types of their columns, and what tells one row from another."""

from typing import Any

import pyarrow as pa

from tollgate.sinks.arrays import DOUBLE, FLAG, INT, LONG, MONEY, TAGS, TEXT, TIME

_PLACE = [("log_partition", INT), ("log_offset", LONG)]

SCHEMAS: dict[str, Any] = {
    "usage": pa.schema(
        [
            ("request_id", TEXT),
            ("ts", TIME),
            ("org_id", TEXT),
            ("team_id", TEXT),
            ("key_id", TEXT),
            ("user_id", TEXT),
            ("endpoint", TEXT),
            ("dialect", TEXT),
            ("model_requested", TEXT),
            ("provider", TEXT),
            ("account", TEXT),
            ("model", TEXT),
            ("status", TEXT),
            ("http_status", INT),
            ("error", TEXT),
            ("reason", TEXT),
            ("stream", FLAG),
            ("input_tokens", LONG),
            ("cache_read_tokens", LONG),
            ("cache_write_tokens", LONG),
            ("output_tokens", LONG),
            ("reasoning_tokens", LONG),
            ("usage_source", TEXT),
            ("cost_usd", MONEY),
            ("bill_usd", MONEY),
            ("hold_usd", MONEY),
            ("cost_source", TEXT),
            ("period", TEXT),
            ("latency_ms", LONG),
            ("ttft_ms", LONG),
            ("overhead_ms", DOUBLE),
            ("cache", TEXT),
            ("attempts", INT),
            ("tags", TAGS),
            ("price_version", TEXT),
            ("accepted_at", TIME),
            *_PLACE,
        ]
    ),
    "attempts": pa.schema(
        [
            ("request_id", TEXT),
            ("attempt", INT),
            ("ts", TIME),
            ("org_id", TEXT),
            ("provider", TEXT),
            ("account", TEXT),
            ("model", TEXT),
            ("served_model", TEXT),
            ("outcome", TEXT),
            ("error_class", TEXT),
            ("http_status", INT),
            ("reason", TEXT),
            ("started_at", TIME),
            ("latency_ms", LONG),
            ("ttft_ms", LONG),
            ("finish_reason", TEXT),
            ("upstream_request_id", TEXT),
            ("cost_usd", MONEY),
            ("bill_usd", MONEY),
            ("cost_source", TEXT),
            ("usage_source", TEXT),
            ("usage_raw", TEXT),
            *_PLACE,
        ]
    ),
    "costs": pa.schema(
        [
            ("request_id", TEXT),
            ("attempt", INT),
            ("revision", INT),
            ("line", INT),
            ("ts", TIME),
            ("org_id", TEXT),
            ("period", TEXT),
            ("meter", TEXT),
            ("quantity", LONG),
            ("unit_price_usd", MONEY),
            ("cost_usd", MONEY),
            ("bill_usd", MONEY),
            ("price_version", TEXT),
            ("cost_source", TEXT),
            *_PLACE,
        ]
    ),
    "audit": pa.schema(
        [
            ("ts", TIME),
            ("org_id", TEXT),
            ("key_id", TEXT),
            ("user_id", TEXT),
            ("actor", TEXT),
            ("action", TEXT),
            ("target", TEXT),
            ("method", TEXT),
            ("route", TEXT),
            ("status", INT),
            ("provider", TEXT),
            ("cost_usd", MONEY),
            ("before", TEXT),
            ("after", TEXT),
            ("request_id", TEXT),
            ("ip", TEXT),
            ("hash", TEXT),
            *_PLACE,
        ]
    ),
}

# What tells one row of a table from every other, and the order within a closed day after organisation and time.
KEYS: dict[str, tuple[str, ...]] = {
    "usage": ("log_partition", "log_offset"),
    "attempts": ("log_partition", "log_offset", "attempt"),
    "costs": ("log_partition", "log_offset", "attempt", "line"),
    "audit": ("log_partition", "log_offset"),
}
