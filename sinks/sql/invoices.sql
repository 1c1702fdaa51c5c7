-- One row per organisation and period (a month, UTC): what was used, what the tenant pays, what it cost the operator.
-- Adjustments count in the period in which they were made.
CREATE VIEW invoices AS
WITH used AS (
    SELECT
        org_id,
        period,
        count(*) AS requests,
        count(*) FILTER (status = 'rejected') AS rejected,
        CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input_tokens,
        CAST(coalesce(sum(cache_read_tokens), 0) AS BIGINT) AS cache_read_tokens,
        CAST(coalesce(sum(cache_write_tokens), 0) AS BIGINT) AS cache_write_tokens,
        CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output_tokens,
        CAST(coalesce(sum(reasoning_tokens), 0) AS BIGINT) AS reasoning_tokens
    FROM usage
    GROUP BY org_id, period
),
charged AS (
    SELECT
        org_id,
        period,
        sum(bill_usd) AS bill_usd,
        sum(cost_usd) AS cost_usd,
        count(*) FILTER (cost_source = 'unpriced') AS unpriced_lines
    FROM costs
    GROUP BY org_id, period
)
SELECT
    org_id,
    period,
    coalesce(requests, 0) AS requests,
    coalesce(rejected, 0) AS rejected,
    coalesce(input_tokens, 0) AS input_tokens,
    coalesce(cache_read_tokens, 0) AS cache_read_tokens,
    coalesce(cache_write_tokens, 0) AS cache_write_tokens,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(reasoning_tokens, 0) AS reasoning_tokens,
    coalesce(bill_usd, 0) AS bill_usd,
    coalesce(cost_usd, 0) AS cost_usd,
    coalesce(unpriced_lines, 0) AS unpriced_lines
FROM used
FULL JOIN charged USING (org_id, period);
