-- Every line in the topic `costs` is a line of the journal, however often it was copied.
SELECT
    request_id,
    'attempt ' || attempt || ', revision ' || revision || ', line ' || line || ': the copy in costs differs from the journal'
        AS what
FROM (
    SELECT request_id, attempt, revision, line, meter, quantity, unit_price_usd, cost_usd, bill_usd, price_version, cost_source
    FROM copies
    EXCEPT
    SELECT request_id, attempt, revision, line, meter, quantity, unit_price_usd, cost_usd, bill_usd, price_version, cost_source
    FROM costs
)
