-- The cost lines in the FinOps Open Cost and Usage Specification, version 1.2 (focus.finops.org), one row per day,
-- organisation, team, key, tags, SKU and price. BilledCost is what the tenant pays, ListCost what the provider's
-- price list says; the sum of BilledCost is the sum of bill_usd in costs, exactly.
-- Columns of later versions stand beside: ServiceProviderName and HostProviderName (1.3), InvoiceDetailId (1.4), and
-- in SkuPriceDetails the token keys of the 1.5 draft. Our own begin with x_.
CREATE VIEW focus AS
WITH meters (meter, sku_meter, unit, direction, cache_action) AS (
    VALUES
        ('input_tokens', 'Input Tokens', 'Tokens', 'Input', 'Uncached'),
        ('cache_read_tokens', 'Cache Read Input Tokens', 'Tokens', 'Input', 'Read'),
        ('cache_write_5m_tokens', 'Cache Write Input Tokens, 5 Minutes', 'Tokens', 'Input', 'Write'),
        ('cache_write_1h_tokens', 'Cache Write Input Tokens, 1 Hour', 'Tokens', 'Input', 'Write'),
        ('cache_write_tokens', 'Cache Write Input Tokens', 'Tokens', 'Input', 'Write'),
        ('input_audio_tokens', 'Audio Input Tokens', 'Tokens', 'Input', 'Uncached'),
        ('input_image_tokens', 'Image Input Tokens', 'Tokens', 'Input', 'Uncached'),
        ('output_tokens', 'Output Tokens', 'Tokens', 'Output', NULL),
        ('reasoning_tokens', 'Reasoning Tokens', 'Tokens', 'Output', NULL),
        ('output_audio_tokens', 'Audio Output Tokens', 'Tokens', 'Output', NULL),
        ('output_image_tokens', 'Image Output Tokens', 'Tokens', 'Output', NULL),
        ('web_searches', 'Web Searches', 'Searches', NULL, NULL),
        ('request', 'Requests', 'Requests', NULL, NULL),
        ('stated', 'Calls', 'Requests', NULL, NULL),
        ('estimate', 'Calls of Unknown Outcome', 'Requests', NULL, NULL)
),
-- Summed up before anything is put into words: that is what makes it quick.
charges AS (
    SELECT
        costs.org_id,
        usage.team_id,
        usage.key_id,
        usage.tags,
        attempts.provider,
        attempts.account,
        attempts.model,
        costs.meter,
        costs.price_version,
        costs.cost_source,
        CASE WHEN costs.cost_source IN ('computed', 'estimated') THEN costs.unit_price_usd END AS unit_price,
        CASE WHEN costs.revision > 0 AND usage.period < costs.period THEN 'Correction' END AS class,
        CAST(costs.period || '-01' AS DATE) AS month,
        -- A request admitted in one month may end in the next; its charge belongs to the month that it is billed in.
        least(CAST(costs.ts AT TIME ZONE 'UTC' AS DATE), last_day(CAST(costs.period || '-01' AS DATE))) AS day,
        CAST(sum(costs.quantity) AS DECIMAL(38, 0)) AS quantity,
        sum(costs.bill_usd) AS billed,
        coalesce(sum(costs.cost_usd), 0) AS listed,
        count(*) AS lines
    FROM costs
    LEFT JOIN attempts USING (request_id, attempt)
    LEFT JOIN usage USING (request_id)
    GROUP BY ALL
)
SELECT
    org_id AS BillingAccountId,
    org_id AS BillingAccountName,
    'USD' AS BillingCurrency,
    CAST(month AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodStart,
    CAST(month + INTERVAL 1 MONTH AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodEnd,
    CAST(day AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodStart,
    CAST(day + INTERVAL 1 DAY AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodEnd,
    'Usage' AS ChargeCategory,
    class AS ChargeClass,
    coalesce(model || ' ', '') || coalesce(sku_meter, meter) AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    billed AS BilledCost,
    billed AS EffectiveCost,
    listed AS ListCost,
    listed AS ContractedCost,
    unit_price AS ListUnitPrice,
    unit_price AS ContractedUnitPrice,
    quantity AS PricingQuantity,
    coalesce(unit, 'Units') AS PricingUnit,
    quantity AS ConsumedQuantity,
    coalesce(unit, 'Units') AS ConsumedUnit,
    'Standard' AS PricingCategory,
    'tollgate' AS InvoiceIssuerName,
    CAST(NULL AS VARCHAR) AS InvoiceId,
    CAST(NULL AS VARCHAR) AS InvoiceDetailId,
    provider AS ProviderName,
    provider AS PublisherName,
    provider AS ServiceProviderName,
    provider AS HostProviderName,
    'AI and Machine Learning' AS ServiceCategory,
    'Generative AI' AS ServiceSubcategory,
    provider || ' API' AS ServiceName,
    provider || '/' || model || '/' || meter AS SkuId,
    provider || '/' || model || '/' || meter || '@' || price_version AS SkuPriceId,
    coalesce(sku_meter, meter) AS SkuMeter,
    -- The merge leaves out what is null.
    CAST(json_merge_patch('{}', json_object(
        'ModelId', model,
        'TokenDirection', direction,
        'TokenCacheAction', cache_action
    )) AS VARCHAR) AS SkuPriceDetails,
    team_id AS SubAccountId,
    team_id AS SubAccountName,
    CASE WHEN team_id IS NOT NULL THEN 'Team' END AS SubAccountType,
    CASE WHEN cardinality(tags) > 0 THEN CAST(to_json(tags) AS VARCHAR) END AS Tags,
    account AS x_Account,
    cost_source AS x_CostSource,
    key_id AS x_KeyId,
    lines AS x_LineCount,
    price_version AS x_PriceVersion
FROM charges
LEFT JOIN meters USING (meter);
