-- Requests, tokens and money per day (UTC), organisation, team, key, provider and model, as the requests ended.
CREATE VIEW usage_daily AS
SELECT
    CAST(ts AT TIME ZONE 'UTC' AS DATE) AS dt,
    org_id,
    team_id,
    key_id,
    provider,
    model,
    count(*) AS requests,
    count(*) FILTER (status = 'completed') AS completed,
    count(*) FILTER (status = 'rejected') AS rejected,
    -- DuckDB sums whole numbers as HUGEINT, which Parquet does not know
    CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input_tokens,
    CAST(coalesce(sum(cache_read_tokens), 0) AS BIGINT) AS cache_read_tokens,
    CAST(coalesce(sum(cache_write_tokens), 0) AS BIGINT) AS cache_write_tokens,
    CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output_tokens,
    CAST(coalesce(sum(reasoning_tokens), 0) AS BIGINT) AS reasoning_tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    coalesce(sum(bill_usd), 0) AS bill_usd
FROM usage
GROUP BY ALL;
