-- One row per request that ended, in Parquet or not yet flushed. Provider, model and tokens are those of the attempt
-- that answered. Tokens are disjoint classes: input_tokens are the uncached ones. cost_usd is what all attempts cost the
-- operator, bill_usd what the tenant pays; what was learned after the end is in costs only.
CREATE VIEW usage AS
SELECT * FROM usage_tail
UNION ALL BY NAME
SELECT * FROM usage_stored;
