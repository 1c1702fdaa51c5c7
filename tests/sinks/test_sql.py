"""The books as SQL: complete to the last record of the log, exact to the last pico-dollar."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, attempt, audit, ended, line, took
from tollgate.errors import UsageError
from tollgate.events import Adjusted, CostLine, Usage
from tollgate.sinks import sql
from tollgate.sinks.compact import compact, due
from tollgate.sinks.fold import TOPICS, Fold
from tollgate.sinks.manifest import Manifest
from tollgate.sinks.schemas import SCHEMAS
from tollgate.sinks.writer import write

E12 = Decimal("1e-12")


def flush(data: Path, log: MemoryLog, *, open_day: str = "") -> None:
    """Put into Parquet all that the log has; close the days before `open_day`."""
    manifest = Manifest(data)
    fold = Fold(manifest.state.cursors)
    for (topic, _), records in log.records.items():
        if topic in TOPICS:
            fold.take(records)
    batch = fold.cut()
    write(manifest, batch)
    for plan in due(manifest.state, open_day):
        compact(manifest, plan, NOON_MS)


async def ask(query: str, data: Path, log: MemoryLog | None = None) -> list[tuple[Any, ...]]:
    with await sql.open_sql(data, log) as connection:
        return connection.execute(query).fetchall()


def busy() -> MemoryLog:
    log = MemoryLog()
    log.put(took(), 0)
    log.put(took(), 1)
    for number in range(9):
        used = Usage(input_tokens=100, cache_read_tokens=3, output_tokens=number)
        call = attempt(
            usage=used, usage_source="provider", lines=[line(quantity=100), line("output_tokens", number, 7)]
        )
        request = {"team_id": "t", "tags": {"project": "x"} if number % 2 else {}}
        log.put(ended(f"r{number}", org=f"org{number % 3}", attempts=(call,), request=request), number % 2)
    log.put(audit(), topic="audit")
    return log


async def test_no_data_at_all_answers_typed_and_empty(tmp_path: Path) -> None:
    for view in sql.VIEWS:
        assert await ask(f"SELECT * FROM {view}", tmp_path / "none") == []
    [(total,)] = await ask("SELECT coalesce(sum(bill_usd), 0) FROM costs", tmp_path / "none", MemoryLog())
    assert total == 0
    types = await ask(
        "SELECT typeof(bill_usd), typeof(ts), typeof(tags) FROM (SELECT 1) LEFT JOIN usage ON true", tmp_path
    )
    assert types == [("DECIMAL(38,12)", "TIMESTAMP WITH TIME ZONE", "MAP(VARCHAR, VARCHAR)")]


@pytest.mark.parametrize("flushed", ["nothing", "part", "all", "all, and the day is closed"])
async def test_what_is_not_flushed_counts_like_what_is(tmp_path: Path, flushed: str) -> None:
    log = busy()
    if flushed != "nothing":
        flush(tmp_path, log, open_day="2025-11-21" if "closed" in flushed else "")
    if flushed == "part":
        log.put(ended("r9"))
    more = int(flushed == "part")
    assert await ask("SELECT count(*), count(DISTINCT request_id) FROM usage", tmp_path, log) == [(9 + more, 9 + more)]
    [(bill,)] = await ask("SELECT sum(bill_usd) FROM costs", tmp_path, log)
    assert bill == (9 * 300 + 36 * 7 + more * 30) * E12
    assert await ask("SELECT count(*) FROM attempts", tmp_path, log) == [(9 + more,)]
    assert await ask("SELECT count(*) FROM audit", tmp_path, log) == [(1,)]


async def test_without_the_log_it_answers_from_parquet(tmp_path: Path) -> None:
    log = busy()
    flush(tmp_path, log)
    log.put(ended("r9"))
    assert await ask("SELECT count(*) FROM usage", tmp_path) == [(9,)]


async def test_files_that_no_manifest_names_are_not_read(tmp_path: Path) -> None:
    log = busy()
    flush(tmp_path, log)
    for path in tmp_path.glob("usage/_live/*"):
        path.with_name("orphan.parquet").write_bytes(path.read_bytes())
        path.with_name("half.parquet").write_bytes(path.read_bytes()[:100])
    assert await ask("SELECT count(*) FROM usage", tmp_path, log) == [(9,)]


async def test_a_file_from_before_a_column_was_added_still_reads(tmp_path: Path) -> None:
    log = busy()
    flush(tmp_path, log)
    [path] = tmp_path.glob("usage/_live/*")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["hold_usd", "cache"]), path)
    log.put(ended("r9", hold_pusd=10**12))
    assert await ask("SELECT count(*), max(hold_usd) FROM usage", tmp_path, log) == [(10, Decimal(1))]


async def test_a_folder_s_name_is_no_pattern_and_no_sql(tmp_path: Path) -> None:
    folder = tmp_path / "it's [data]*"
    flush(folder, busy())
    assert await ask("SELECT count(*) FROM usage", folder) == [(9,)]


async def test_days_are_utc_whatever_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    log = MemoryLog(now_ms=NOON_MS - DAY_MS // 2)
    log.put(took())
    log.put(ended("just after midnight"))
    found = await ask(
        "SELECT CAST(dt AS VARCHAR), (SELECT CAST(ts AS VARCHAR) FROM usage) FROM usage_daily", tmp_path, log
    )
    assert found == [("2025-11-20", "2025-11-20 00:00:00+00")]


async def test_usage_daily_counts_requests_tokens_and_money(tmp_path: Path) -> None:
    log = busy()
    log.put(ended("no", org="org0", attempts=(), status="rejected", http_status=429, src=1))
    query = """SELECT requests, completed, rejected, input_tokens, output_tokens, bill_usd FROM usage_daily
        WHERE org_id = 'org0' ORDER BY model NULLS LAST"""
    assert await ask(query, tmp_path, log) == [(3, 3, 0, 300, 9, 963 * E12), (1, 0, 1, 0, 0, 0)]


async def test_an_invoice_holds_what_ended_in_its_period_and_what_was_adjusted_in_it(tmp_path: Path) -> None:
    log = busy()
    log.now_ms += 20 * DAY_MS
    lines = (line("estimate", -1, 100, cost_pusd=-100), line(quantity=10))
    log.put(Adjusted(epoch=0, request_id="r0", org_id="org0", attempt=1, revision=1, reason="invoice", lines=lines))
    query = "SELECT period, requests, input_tokens, bill_usd FROM invoices WHERE org_id = 'org0' ORDER BY period"
    assert await ask(query, tmp_path, log) == [("2025-11", 3, 300, 963 * E12), ("2025-12", 0, 0, -70 * E12)]
    [row] = await ask("SELECT sum(i.bill_usd) = (SELECT sum(bill_usd) FROM costs) FROM invoices i", tmp_path, log)
    assert row == (True,)


# FOCUS 1.2: the columns that a dataset must have, and those that may not be null.
FOCUS_MANDATORY = {
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
}
FOCUS_NULLABLE = {"ChargeClass", "PricingQuantity", "PricingUnit", "ChargeDescription"}

lines = st.lists(
    st.builds(
        lambda meter, quantity, price, bill, source: CostLine(
            meter=meter,
            quantity=quantity,
            unit_price_pusd=price,
            cost_pusd=0 if source == "unpriced" else quantity * price,
            bill_pusd=min(bill, quantity * price),
            price_version="v",
            cost_source=source,
        ),
        st.sampled_from(["input_tokens", "cache_read_tokens", "output_tokens", "request", "estimate", "of_tomorrow"]),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.integers(0, 10**18),
        st.sampled_from(["computed", "estimated", "provider_reported", "unpriced"]),
    ),
    max_size=5,
)


@settings(max_examples=15)
@given(st.lists(lines, max_size=8))
def test_focus_bills_exactly_what_the_costs_say(requests: list[list[CostLine]]) -> None:
    log = MemoryLog(1)
    log.put(took())
    for number, of_request in enumerate(requests):
        log.put(ended(f"r{number}", org=f"o{number % 2}", attempts=(attempt(lines=of_request),)))
    fold = Fold({})
    fold.take(log.records["completions", 0])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        parts = {part.table: part.rows for part in fold.cut().parts}
        for table, schema in SCHEMAS.items():
            connection.register(table, parts.get(table, schema.empty_table()))
        connection.execute((Path(sql.__file__).parent / "focus.sql").read_text())
        found = connection.execute("SELECT sum(BilledCost), sum(ListCost) FROM focus").fetchall()
        assert found == connection.execute("SELECT sum(bill_usd), sum(coalesce(cost_usd, 0)) FROM costs").fetchall()
        rows = connection.execute("SELECT ListUnitPrice, PricingQuantity, ListCost FROM focus").fetchall()
        assert all(price is None or price * quantity == cost for price, quantity, cost in rows)


async def test_focus_has_every_mandatory_column_and_no_null_where_none_may_be(tmp_path: Path) -> None:
    with await sql.open_sql(tmp_path, busy()) as connection:
        columns = [name for name, *_ in connection.execute("DESCRIBE focus").fetchall()]
        assert set(columns) >= FOCUS_MANDATORY
        for name in FOCUS_MANDATORY - FOCUS_NULLABLE:
            assert connection.execute(f"SELECT count(*) FROM focus WHERE {name} IS NULL").fetchall() == [(0,)], name
        [row] = connection.execute(
            """SELECT BillingPeriodStart::VARCHAR, BillingPeriodEnd::VARCHAR, ChargePeriodStart::VARCHAR, SkuId, Tags,
            SkuPriceDetails, ConsumedQuantity FROM focus
            WHERE BillingAccountId = 'org0' AND SkuMeter = 'Input Tokens' AND Tags IS NOT NULL"""
        ).fetchall()
    assert row == (
        "2025-11-01 00:00:00+00",
        "2025-12-01 00:00:00+00",
        "2025-11-20 00:00:00+00",
        "sandbox/sandbox-large/input_tokens",
        '{"project":"x"}',
        '{"ModelId":"sandbox-large","TokenDirection":"Input","TokenCacheAction":"Uncached"}',
        100,
    )


async def test_a_charge_lies_in_the_month_that_it_is_billed_in(tmp_path: Path) -> None:
    """Admitted in November, ended in December."""
    log = MemoryLog(now_ms=NOON_MS + 11 * DAY_MS)
    log.put(took())
    log.put(ended("r1", period="2025-11"))
    query = "SELECT ChargePeriodStart::VARCHAR, ChargePeriodEnd = BillingPeriodEnd FROM focus"
    assert await ask(query, tmp_path, log) == [("2025-11-30 00:00:00+00", True)]


async def test_an_adjustment_of_an_earlier_month_is_a_correction(tmp_path: Path) -> None:
    log = busy()
    log.put(Adjusted(epoch=0, request_id="r0", org_id="org0", attempt=1, revision=1, reason="x", lines=(line(),)))
    log.now_ms += 20 * DAY_MS
    log.put(Adjusted(epoch=0, request_id="r0", org_id="org0", attempt=1, revision=2, reason="x", lines=(line(),)))
    query = "SELECT ChargeClass, count(*) FROM focus GROUP BY 1 ORDER BY 1 NULLS FIRST"
    assert [row[0] for row in await ask(query, tmp_path, log)] == [None, "Correction"]


# What the command prints ----------------------------------------------------------------------------------------------

BILLS = (
    "SELECT org_id, bill_usd, sum(requests) AS requests, NULL AS nothing FROM invoices WHERE org_id = ? GROUP BY ALL"
)


async def test_csv_has_every_decimal(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    await sql.run(BILLS, data=tmp_path, log=busy(), parameters=["org0"], format="csv", out=out)
    assert out.read_text() == "org_id,bill_usd,requests,nothing\norg0,0.000000000963,3,\n"


async def test_json_keeps_amounts_as_text_and_counts_as_numbers(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    await sql.run(BILLS, data=tmp_path, log=busy(), parameters=["org0"], format="json", out=out)
    assert json.loads(out.read_text()) == [
        {"org_id": "org0", "bill_usd": "0.000000000963", "requests": 3, "nothing": None}
    ]
    query = "SELECT ts, tags FROM usage WHERE request_id = 'r1'"
    await sql.run(query, data=tmp_path, log=busy(), format="json", out=out)
    assert json.loads(out.read_text()) == [{"ts": "2025-11-20T12:00:00Z", "tags": {"project": "x"}}]


async def test_parquet_keeps_types_and_sums_that_are_wider_than_64_bits(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    query = "SELECT sum(bill_usd) AS bill, sum(quantity) * 1000000000000000000000 AS large FROM costs"
    await sql.run(query, data=tmp_path, log=busy(), format="parquet", out=out)
    table = pq.ParquetFile(out).read()
    assert [str(field.type) for field in table.schema] == ["decimal128(38, 12)", "decimal128(38, 0)"]
    assert table.to_pylist() == [{"bill": Decimal("2952E-12"), "large": Decimal(936 * 10**21)}]


async def test_a_table_shows_every_value_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await sql.run("SELECT *, '[red]no markup[/]' AS said FROM usage ORDER BY 1", data=tmp_path, log=busy())
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "0.000000000356" in shown and "[red]no markup[/]" in shown and "NULL" in shown


async def test_what_duckdb_refuses_is_a_mistake_of_the_user_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no_such_column"):
        await sql.run("SELECT no_such_column FROM usage", data=tmp_path)
    with pytest.raises(UsageError, match="--output"):
        await sql.run("SELECT 1", data=tmp_path, format="parquet")


async def test_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        await sql.run("SELECT * FROM 'https://example.invalid/x.parquet'", data=tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        "drop view usage",
        "create table t (n integer)",
        "copy (select 1) to 'x.csv'",
        "select 1; select 2",
        "set memory_limit = '1GB'",
        "attach ':memory:' as other",
        "select * from read_text('admin.key')",
        "select * from glob('*')",
        "",
    ],
)
async def test_the_books_are_asked_and_nothing_else(tmp_path, monkeypatch, query):
    """Whoever may ask for a sum may not read the admin key, which lies beside the books."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "admin.key").write_text("a key")
    with pytest.raises(UsageError):
        await sql.run(query, data=tmp_path)
    assert [path.name for path in tmp_path.glob("*.csv")] == []


@pytest.mark.parametrize("query", ["show tables", "SHOW TABLES;"])
async def test_who_asks_for_the_tables_is_told_what_each_has_and_none_of_their_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    await sql.run(query, data=tmp_path, format="json")
    shown = {row["name"]: row["rows"] for row in json.loads(capsys.readouterr().out)}
    assert sorted(shown) == sorted(sql.VIEWS)
    assert shown["usage"].startswith("One row per request")


async def test_who_asks_for_no_table_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        await sql.run("SELECT * FROM requests", data=tmp_path)
    assert str(told.value) == f"Table with name requests does not exist; there are {', '.join(sql.VIEWS)}"


async def test_a_table_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await sql.run("SELECT 'gpt' || chr(27) || '[2J' AS model", data=tmp_path)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "gpt\\x1b[2J" in out


@pytest.mark.parametrize(("width", "lines"), [("80", 6), ("20", 8)])
async def test_rows_that_do_not_fit_the_terminal_have_a_table_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str, lines: int
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    await sql.run("SELECT 'sandbox' AS model, i AS requests FROM range(2) AS counted(i)", data=tmp_path)
    out = capsys.readouterr().out
    assert out.count("sandbox") == 2 and len(out.splitlines()) == lines
    assert max(map(len, out.splitlines())) <= int(width) + 2
